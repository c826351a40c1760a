"""Plots as SVG text: bars, lines, and nothing that needs a library."""
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP = 760, 250, 70, 54
COLOURS = ("#1f6fb2", "#d1862b", "#8a8f98", "#3f8f5f")
TEXT = 'font-family="DejaVu Sans, Verdana, sans-serif"'


def document(title, subtitle, height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" {TEXT}>'
            f'<rect width="100%" height="100%" fill="#ffffff"/>'
            f'{text(16, 22, title, 15, weight="bold")}{text(16, 40, subtitle, 11, "#555555")}{"".join(body)}</svg>\n')


def text(x, y, words, size=11, fill="#222222", anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">{escape(str(words))}</text>'


def legend(names, y):
    body, x = [], LEFT
    for name, colour in zip(names, COLOURS):
        body.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>{text(x + 14, y, name)}')
        x += 30 + 7 * len(name)
    return body


def bars(title, subtitle, names, groups):
    """Horizontal bars: `groups` is [(label, figures)], a figure of None is left out; each is written at its bar."""
    most = max((figure for _, figures in groups for figure in figures if figure is not None), default=1) or 1
    scale, y, body = (WIDTH - LEFT - RIGHT) / most, TOP + 26, legend(names, TOP + 6)
    for label, figures in groups:
        shown = [(figure, colour) for figure, colour in zip(figures, COLOURS) if figure is not None]
        body.append(text(LEFT - 8, y + 7 * len(shown) + 3, label, anchor="end"))
        for figure, colour in shown:
            body.append(f'<rect x="{LEFT}" y="{y}" width="{max(figure * scale, 1):.1f}" height="12" fill="{colour}"/>')
            body.append(text(LEFT + figure * scale + 5, y + 10, f"{figure:.3g}" if figure < 1000 else f"{figure:.0f}", 10, "#444444"))
            y += 14
        y += 10
    return document(title, subtitle, y + 10, body)


def ticks(most):
    """Three to six round steps up to `most`."""
    step = 10.0 ** len(str(int(most))) / 10
    for factor in (0.1, 0.2, 0.5, 1, 2, 5):
        if most / (step * factor) <= 6:
            step *= factor
            break
    return [step * n for n in range(int(most / step) + 1)]


def lines(title, subtitle, names, series, x_label, y_label, spread_x=None):
    """Lines over a common x axis: `series` is [[(x, y)]] in the order of `names`; None is a gap. `spread_x` maps x to a position."""
    height, left, bottom = 330, 70, 280
    place = spread_x or (lambda x: x)
    xs = [place(x) for line in series for x, _ in line]
    most_y = max((y for line in series for _, y in line if y is not None), default=1) * 1.08 or 1
    low, high = min(xs), max(max(xs), min(xs) + 1e-9)
    at_x = lambda x: left + (place(x) - low) / (high - low) * (WIDTH - left - RIGHT)
    at_y = lambda y: bottom - y / most_y * (bottom - TOP - 26)
    body = legend(names, TOP + 6)
    for y in ticks(most_y):
        body.append(f'<line x1="{left}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}" stroke="#e3e3e3"/>')
        body.append(text(left - 6, at_y(y) + 4, f"{y:g}", 10, "#555555", "end"))
    marks = sorted({x for line in series for x, _ in line}) if spread_x else ticks(high)
    for x in marks:
        body.append(text(at_x(x), bottom + 16, f"{x:g}", 10, "#555555", "middle"))
    for line, colour in zip(series, COLOURS):
        points = [(at_x(x), at_y(y)) for x, y in line if y is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(points) <= 12:
            for (x, y), (_, figure) in zip(points, [point for point in line if point[1] is not None]):
                body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>{text(x, y - 8, f"{figure:.3g}", 10, "#444444", "middle")}')
    body.append(text((left + WIDTH - RIGHT) / 2, bottom + 36, x_label, 11, "#555555", "middle"))
    body.append(text(16, TOP + 22, y_label, 10, "#555555"))
    return document(title, subtitle, height, body)
