"""Speed of 4DVarNet against the solver of 4dvarnet-starter, restated in PyTorch, measured in turns in one run.

    python benchmarks/fourdvarnet.py                  all parts, recorded
    python benchmarks/fourdvarnet.py --quick --only train

Both sides run in processes of their own with one thread each and are asked alternately; the best of several counts.
Times are CPU times. The peer is first held against the iterates that the starter itself gave.
"""

from __future__ import annotations

from comparing import Benchmark, Question, Setting, compared, in_turns, run, verdict
from fourdvarnet_sizes import BATCH
from peers import Environment
from table import Row, duration


def agreement(setting: Setting) -> list[Row]:
    """What is timed is the starter's algorithm."""
    with setting.ours("starter") as theirs:
        difference = theirs.measure("agreement").found["difference"]
    what = "largest difference of the peer's iterates from the starter's own, standardised"
    return [Row(what, setting.where, f"{difference:.1e}", bar=f"≤ 1e-6: {verdict(difference <= 1e-6)}")]


def train(setting: Setting) -> list[Row]:
    """A weight update at the starter's size."""
    with setting.ours() as ours, setting.ours("starter") as theirs:
        questions = [Question(side, "train", 1) for side in (ours, theirs)]
        mine, other = in_turns(setting, questions, 2 if setting.quick else 5)
    assert mine is not None
    assert other is not None
    what = f"training step of the starter's size, {BATCH} windows of 200 steps, 15 iterations"
    return [compared(what, setting, mine.seconds, other.seconds, "starter's solver in PyTorch", None, 3)]


def analyse(setting: Setting) -> list[Row]:
    """Analyses of one and of many windows, by the model that ships and at the starter's size."""
    rows = []
    for count, bar in ((1, 20e-3), (BATCH, 270e-3)):
        with setting.ours() as ours, setting.ours() as small, setting.ours("starter") as theirs:
            questions = [
                Question(small, "analyse", 3, {"count": count, "shipped": True}),
                Question(ours, "analyse", 3, {"count": count, "shipped": False}),
                Question(theirs, "analyse", 1, {"count": count}),
            ]
            shipped, same, other = in_turns(setting, questions, 2 if setting.quick else 6)
        assert shipped is not None
        assert same is not None
        assert other is not None
        noun = "one window" if count == 1 else f"{count} windows"
        reference = f"{duration(other.seconds)} (starter's solver in PyTorch)"
        for label, ours_took, limit in (
            ("the model that ships", shipped, f"≤ {duration(bar)}: {verdict(shipped.seconds <= bar)}"),
            ("the starter's size", same, ""),
        ):
            ratio = f"{other.seconds / ours_took.seconds:.1f}×"
            what = f"analysis of {noun} of 200 steps, {label}"
            rows.append(Row(what, setting.where, duration(ours_took.seconds), reference, ratio, limit))
    return rows


if __name__ == "__main__":
    run(
        Benchmark(
            name="fourdvarnet",
            title="4DVarNet",
            parts={part.__name__: part for part in (agreement, train, analyse)},
            environment=Environment("none", (), ""),
            note="One thread a side, asked in turns, the best turn of each; CPU times. The peer is this project's "
            "restatement of 4dvarnet-starter in PyTorch, checked against the starter's recorded iterates.",
        ),
        __doc__,
    )
