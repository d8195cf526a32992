"""The style sheet of the page: light and dark, for any width, with the fonts of the reader's system."""

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1b1f24; --muted: #57606a; --edge: #d0d7de;
  --card: #f6f8fa; --accent: #0550ae; --bar: #8c959f; --good: #116329; --bad: #b3131f; --warn: #fff1d6;
  --s0: #1b1f24; --s1: #0072b2; --s2: #c14d00; --s3: #00785a; --s4: #a8497f; --s5: #2684b5; --s6: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --ink: #e6edf3; --muted: #9da7b3; --edge: #3d444d;
  --card: #161b22; --accent: #79b8ff; --bar: #6e7681; --good: #56d364; --bad: #ff8f88; --warn: #3a2c0c;
  --s0: #e6edf3; --s1: #58a6ff; --s2: #ff9352; --s3: #3fd6a5; --s4: #e79ac6; --s5: #8fd3ff; --s6: #f0b93a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--edge); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
a { color: var(--accent); }
header p, .how, .axis, figcaption, small, caption { color: var(--muted); }
header p { margin: 0; }
p.warning { margin: .75rem 0 0; padding: .5rem .75rem; color: var(--ink); background: var(--warn);
  border-left: 4px solid var(--s6); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dl, figure { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.cards > div, article { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; padding: .75rem 1rem; }
.cards dt { color: var(--muted); }
.cards dd { margin: 0; }
.cards strong { display: block; font-size: 1.5rem; line-height: 1.3; }
ul.contents { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 0; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
article h3 { margin-top: 0; }
dl:not(.cards) > div { display: grid; grid-template-columns: minmax(7rem, 1fr) 2.2fr; gap: .75rem; padding: .15rem 0; }
dl:not(.cards) dt { color: var(--muted); }
dl:not(.cards) dd { margin: 0; min-width: 0; }
code { font-size: .85em; }
.scroll { overflow-x: auto; margin: 1rem 0; background: linear-gradient(to right, transparent, var(--ground) 1.5rem) right / 3rem 100%
  no-repeat local, linear-gradient(to left, var(--edge), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; min-width: 100%; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { text-align: left; padding: .35rem .75rem; border-bottom: 1px solid var(--edge); vertical-align: top; }
th:first-child { padding-left: 0; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 9rem; max-width: 22rem; overflow-wrap: anywhere; }
td { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
small { font-weight: 400; }
.passed { color: var(--good); }
.failed, .failures { color: var(--bad); }
.bars { list-style: none; margin: .75rem 0 0; padding: 0; max-width: 48rem; }
.bars li { margin-bottom: .8rem; }
.label { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
.value { font-variant-numeric: tabular-nums; color: var(--muted); }
svg { display: block; overflow: visible; }
svg text { fill: var(--muted); font-size: 12px; }
.track { fill: var(--card); stroke: var(--edge); }
.bar { fill: var(--bar); }
.bar.strong { fill: var(--accent); }
.grid { stroke: var(--edge); }
.line { stroke: currentColor; stroke-width: 2; }
.mark { fill: var(--ground); stroke: currentColor; stroke-width: 2; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); }
.axis { text-align: center; font-size: .8rem; margin: .1rem 0 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .75rem 0; }
.legend li { display: flex; gap: .4rem; align-items: center; }
.legend svg { flex: none; }
.notes, .failures { padding-left: 1.2rem; }
.notes li, .failures li { margin-bottom: .3rem; }
summary { cursor: pointer; padding: .35rem 0; color: var(--accent); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.25rem; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 4px; }
.pictures figcaption { padding-top: .4rem; }
@media (max-width: 30rem) { dl:not(.cards) > div { grid-template-columns: 6.5rem 1fr; } th, td { padding: .35rem .5rem; } }
@media print { .scroll { overflow: visible; } }
"""
