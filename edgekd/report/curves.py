"""Training curves as small multiples: the validation score above, the loss below, one picture a stage."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.report.axis import Axis, nice_ticks
from edgekd.report.format import duration, percent, plural
from edgekd.report.labels import text_width
from edgekd.report.markup import Markup, join, tag
from edgekd.report.schema import StageFacts

WIDTH, HEIGHT, FONT = 300.0, 236.0, 10.5
_LEFT, _RIGHT = 42.0, WIDTH - 8
_BANDS = ((16.0, 106.0), (128.0, 204.0))
Series = Sequence[tuple[int, float]]


def curves_picture(stage: StageFacts) -> Markup | None:
    """``None`` for a stage without a history."""
    scores, score_name = _scores(stage)
    losses = [(epoch.epoch, epoch.train_loss) for epoch in stage.history if epoch.train_loss is not None]
    bands = [
        (values, name, css)
        for values, name, css in ((scores, score_name, "score"), (losses, "training loss", "loss"))
        if values
    ]
    if not bands:
        return None
    epochs = [epoch for values, _, _ in bands for epoch, _ in values]
    x = Axis(min(epochs), max(epochs), _LEFT, _RIGHT)
    height = HEIGHT if len(bands) == 2 else _BANDS[0][1] + HEIGHT - _BANDS[1][1]
    drawn = [
        _band(values, x, top, bottom, name, css, is_share=css == "score")
        for (values, name, css), (top, bottom) in zip(bands, _BANDS, strict=False)
    ]
    bottom = _BANDS[len(bands) - 1][1]
    ticks = [value for value in nice_ticks(x.low, x.high, 5) if value == int(value)]
    marks = [
        tag("text", f"{value:.0f}", x=x(value), y=bottom + 14, text_anchor="middle", class_="tick")
        for value in ticks
    ]
    title = tag("text", "epoch", x=_RIGHT, y=bottom + 28, text_anchor="end", class_="axis-title")
    name = tag("title", f"training curves of {stage.name}")
    return tag(
        "svg",
        name,
        *drawn,
        *marks,
        title,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        role="img",
        class_="picture",
    )


def curves_caption(stage: StageFacts) -> str:
    """Epochs, time, rate and the teacher's share of it: what the curve cost."""
    history = stage.history
    parts = [plural(len(history), "epoch")]
    times = [epoch.seconds for epoch in history if epoch.seconds is not None]
    if times:
        parts.append(duration(sum(times)))
    rates = sorted(epoch.samples_per_second for epoch in history if epoch.samples_per_second is not None)
    if rates:
        parts.append(f"{rates[len(rates) // 2]:,.0f} samples/s")
    shares = [
        epoch.teacher_seconds / epoch.seconds
        for epoch in history
        if epoch.teacher_seconds is not None and epoch.seconds
    ]
    if shares and max(shares) > 0:
        text = f"teacher {percent(shares[0], 0)} of the first epoch"
        parts.append(text if len(shares) == 1 else f"{text}, {percent(shares[-1], 0)} of the last")
    return " · ".join(parts)


def _scores(stage: StageFacts) -> tuple[Series, str]:
    top1 = [(epoch.epoch, epoch.val_top1) for epoch in stage.history if epoch.val_top1 is not None]
    if top1:
        return top1, "validation top-1"
    f1 = [(epoch.epoch, epoch.val_f1_micro) for epoch in stage.history if epoch.val_f1_micro is not None]
    if f1:
        return f1, "validation micro F1"
    agreement = [
        (epoch.epoch, epoch.val_agreement) for epoch in stage.history if epoch.val_agreement is not None
    ]
    return agreement, "validation agreement"


def _band(
    values: Series, x: Axis, top: float, bottom: float, name: str, css: str, *, is_share: bool
) -> Markup:
    heights = [value for _, value in values]
    low, high = min(heights), max(heights)
    room = (high - low or abs(high) * 0.01 or 0.01) * 0.12
    y = Axis(low - room, min(1.0, high + room) if is_share else high + room, bottom, top)
    text = (lambda value: percent(value, 1)) if is_share else (lambda value: f"{value:.3g}")
    parts = []
    for value in {text(value): value for value in nice_ticks(y.low, y.high, 3)}.values():
        parts.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=y(value), y2=y(value), class_="grid"))
        parts.append(
            tag("text", text(value), x=_LEFT - 5, y=y(value) + 3.5, text_anchor="end", class_="tick")
        )
    points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in values)
    parts.append(tag("polyline", points=points, class_=f"curve {css}"))
    best = (max if is_share else min)(values, key=lambda pair: pair[1])
    parts.append(tag("circle", cx=x(best[0]), cy=y(best[1]), r=3, class_=f"dot {css}"))
    parts.append(tag("text", name, x=_LEFT, y=top - 6, class_="band-title"))
    told = f"best {percent(best[1])} at {best[0]}" if is_share else f"lowest {best[1]:.4g} at {best[0]}"
    if text_width(name + told, FONT) < _RIGHT - _LEFT - 10:
        parts.append(tag("text", told, x=_RIGHT, y=top - 6, text_anchor="end", class_="tick"))
    return join(*parts)
