"""An evaluation, and a comparison of two, as text and as Markdown."""

from msgspec.structs import replace

from ssdtrt.commands.text.evaluation import compare_markdown, compare_text, evaluation_markdown, evaluation_text
from ssdtrt.evaluation.compare import ComparedFigure, EvalComparison
from ssdtrt.evaluation.report import FIGURES, ClassFigures, EvalReport, EvalSettings
from ssdtrt.system.versions import MeasuredOn, Versions


def evaluation(name="ssd300.engine.ts", precision="fp16", first=0.2504, against=(), **changes):
    """A report whose figures fall by 0.01 from `first`; there is no large object."""
    figures = {figure: first - 0.01 * index for index, figure in enumerate(FIGURES)}
    figures.update(APl=None, ARl=None)
    values = {
        "classes": (
            ClassFigures("baseball glove", 40, 0.1234, 0.3336, 148),
            ClassFigures("cat", 17, 0.5, 0.75, 202),
            ClassFigures("hair drier", 89, None, None, 0),
            ClassFigures("dog", 18, 0.0, 0.0, 218),
        ),
        "images": 5000, "objects": 36335, "detections": 298000, "seconds": 4.0, "images_per_second": 1250.0,
        "machine": MeasuredOn(cpu="Some CPU", cores=2, versions=Versions(torch="2.9.0")),
        "settings": EvalSettings("instances_val2017.json", 0.05, 0.5, 200),
        "notes": ("classes are matched to the categories in order of id",),
    }  # fmt: skip
    return EvalReport(name, precision, figures, against=against, **{**values, **changes})


BASELINES = (evaluation("eager-fp32", "fp32", 0.2506), evaluation("eager-fp16", "fp16", 0.25))


def test_evaluation_text():
    assert evaluation_text(evaluation(against=BASELINES), 100) == (
        "Some CPU, 2 cores, torch 2.9.0\n"
        "ssd300.engine.ts FP16 on instances_val2017.json: 5,000 pictures, 36,335 objects, 298,000 detections,\n"
        "1,250.0 images/s\n"
        "score > 0.05, NMS at IoU 0.5, at most 200 detections a picture, EXIF orientation ignored\n"
        "\n"
        "figure  engine  eager-fp32  vs eager-fp32  eager-fp16  vs eager-fp16\n"
        "AP       0.250       0.251        -0.0002       0.250        +0.0004\n"
        "AP50     0.240       0.241        -0.0002       0.240        +0.0004\n"
        "AP75     0.230       0.231        -0.0002       0.230        +0.0004\n"
        "APs      0.220       0.221        -0.0002       0.220        +0.0004\n"
        "APm      0.210       0.211        -0.0002       0.210        +0.0004\n"
        "APl          -           -              -           -              -\n"
        "AR1      0.190       0.191        -0.0002       0.190        +0.0004\n"
        "AR10     0.180       0.181        -0.0002       0.180        +0.0004\n"
        "AR100    0.170       0.171        -0.0002       0.170        +0.0004\n"
        "ARs      0.160       0.161        -0.0002       0.160        +0.0004\n"
        "ARm      0.150       0.151        -0.0002       0.150        +0.0004\n"
        "ARl          -           -              -           -              -\n"
        "\n"
        "class              AP   AP50  objects\n"
        "cat             0.500  0.750      202\n"
        "baseball glove  0.123  0.334      148\n"
        "dog             0.000  0.000      218\n"
        "hair drier          -      -        0\n"
        "\n"
        "note: classes are matched to the categories in order of id"
    )


def test_evaluation_text_without_baselines():
    lines = evaluation_text(evaluation(notes=()), 10_000).splitlines()
    assert lines[1].endswith("298,000 detections, 1,250.0 images/s")
    assert lines[4:6] == ["figure  value", "AP      0.250"] and lines[-1] == "hair drier          -      -        0"


def test_narrow_evaluation_text():
    odd = ClassFigures("a name that is much too long for here", 1, 0.9, 0.9, 7)
    made = evaluation()
    text = evaluation_text(evaluation(classes=(*made.classes, odd)), 40)
    assert all(len(line) <= 40 for line in text.splitlines())
    assert "\nfigure  value\nAP      0.250\n" in text
    assert "\na name that is...  0.900  0.900        7\ncat                0.500  0.750      202\n" in text
    assert "\nssd300.engine.ts FP16 on\ninstances_val2017.json: 5,000 pictures,\n" in text
    stacked = evaluation_text(evaluation(against=BASELINES), 40)
    assert all(len(line) <= 40 for line in stacked.splitlines())
    assert "\nAP\n  engine: 0.250\n  eager-fp32: 0.251\n  vs eager-fp32: -0.0002\n  eager-fp16: 0.250\n" in stacked


def test_orientation_in_the_text():
    made = evaluation()
    turned = replace(made, settings=replace(made.settings, orient=True))
    assert "at most 200 detections a picture, EXIF orientation applied\n" in evaluation_text(turned, 200)


def test_evaluation_markdown():
    lines = evaluation_markdown(evaluation(against=BASELINES[:1])).splitlines()
    assert lines[:5] == [
        "### ssdtrt evaluate", "", "Some CPU, 2 cores, torch 2.9.0", "",
        r"ssd300.engine.ts FP16 on instances\_val2017.json: 5,000 pictures, 36,335 objects, 298,000 detections, "
        "1,250.0 images/s",
    ]  # fmt: skip
    assert lines[8:11] == [
        "| figure | engine | eager-fp32 | vs eager-fp32 |", "| --- | --: | --: | --: |", "| AP | 0.250 | 0.251 | -0.0002 |"
    ]  # fmt: skip
    assert lines[23:26] == [
        "| class | AP | AP50 | objects |",
        "| --- | --: | --: | --: |",
        "| cat | 0.500 | 0.750 | 202 |",
    ]
    assert lines[-1] == "- note: classes are matched to the categories in order of id"


FELL = EvalComparison(
    "old.json", "new_1.json", ("a.ts FP32", "b.ts FP16"), 0.01,
    tuple(ComparedFigure(name, 0.25, None if name == "APl" else 0.2375) for name in FIGURES),
    (ComparedFigure("cat", 0.5, 0.5), ComparedFigure("cow", None, None), ComparedFigure("dog", 0.5, 0.4)),
    ("AP fell from 0.25 to 0.2375, by 0.0125; expected at most 0.01.",), ("something",),
)  # fmt: skip


def test_compare_text():
    assert compare_text(FELL, 80) == (
        "old.json: a.ts FP32\n"
        "new_1.json: b.ts FP16\n"
        "\n"
        "figure    old    new   change\n"
        "AP      0.250  0.237  -0.0125\n"
        "AP50    0.250  0.237  -0.0125\n"
        "AP75    0.250  0.237  -0.0125\n"
        "APs     0.250  0.237  -0.0125\n"
        "APm     0.250  0.237  -0.0125\n"
        "APl     0.250      -        -\n"
        "AR1     0.250  0.237  -0.0125\n"
        "AR10    0.250  0.237  -0.0125\n"
        "AR100   0.250  0.237  -0.0125\n"
        "ARs     0.250  0.237  -0.0125\n"
        "ARm     0.250  0.237  -0.0125\n"
        "ARl     0.250  0.237  -0.0125\n"
        "\n"
        "class AP    old    new   change\n"
        "dog       0.500  0.400  -0.1000\n"
        "cat       0.500  0.500  +0.0000\n"
        "cow           -      -        -\n"
        "\n"
        "note: something\n"
        "FAILED: AP broke the limit of 0.01"
    )
    passed = compare_text(replace(FELL, failures=(), notes=()), 80)
    assert passed.endswith("-\n\npassed: AP did not fall by more than 0.01")
    assert compare_text(replace(FELL, failures=(), notes=(), limit=None), 80).endswith(
        "\ncow           -      -        -"
    )
    assert all(len(line) <= 24 for line in compare_text(FELL, 24).splitlines())


def test_compare_markdown():
    lines = compare_markdown(FELL).splitlines()
    assert lines[:7] == [
        "### ssdtrt compare", "", "old.json: a.ts FP32", "", r"new\_1.json: b.ts FP16", "", "| figure | old | new | change |"
    ]  # fmt: skip
    assert lines[-3:] == [
        "- something", "- FAILED: AP broke the limit of 0.01",
        "- AP fell from 0.25 to 0.2375, by 0.0125; expected at most 0.01.",
    ]  # fmt: skip
