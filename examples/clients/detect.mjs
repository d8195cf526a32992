// Detect objects in pictures with a running service: node detect.mjs http://127.0.0.1:8000 PICTURE...
import { readFile } from "node:fs/promises";

const [url, ...pictures] = process.argv.slice(2);
for (const picture of pictures) {
  const answer = await fetch(`${url}/detect`, { method: "POST", body: await readFile(picture) });
  if (!answer.ok) throw new Error(`${picture}: ${answer.status} ${await answer.text()}`);
  for (const { label, score, box } of (await answer.json()).detections) console.log(picture, label, score, ...box);
}
