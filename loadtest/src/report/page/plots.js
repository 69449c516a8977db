// The four kinds of plot. Each is drawn for a width in pixels and gives back one SVG element.

/** Below this width, names and values stand above their row instead of beside it. */
const NARROW = 430;
const AXIS_HEIGHT = 24;

/** Every round a dot, the range a line, the median a bar from zero; `companion` is drawn beneath in grey. */
function rangePlot(width, figure, companion, styles, baseline) {
  const narrow = width < NARROW;
  const subjects = [...figure.bySubject.keys()];
  const { scale } = figure;
  const left = narrow ? 1 : Math.min(170, Math.max(...subjects.map((subject) => textWidth(subject, true))) + 12);
  const right = width - (narrow ? 12 : 132);
  const values = [figure, ...(companion ? [companion] : [])].flatMap(({ bySubject }) => [...bySubject.values()]);
  // Growth may be negative; everything else begins at zero.
  const least = Math.min(0, ...values.map((spread) => spread.min));
  const largest = Math.max(0, ...values.map((spread) => spread.max));
  const ticks = ticksTo(largest / scale.size, width < 360 ? 3 : 4, least / scale.size);
  const [low, high] = [ticks[0].value * scale.size, ticks.at(-1).value * scale.size];
  const x = (value) => left + ((value - low) / (high - low)) * (right - left);
  const labelHeight = narrow ? 18 : 0;
  const rowHeight = labelHeight + 30 + (companion ? 12 : 0);
  const bottom = subjects.length * rowHeight + 2;
  const plot = svg('svg', { viewBox: `0 0 ${width} ${bottom + AXIS_HEIGHT}`, role: 'img' });

  for (const tick of thinned(ticks, ({ value }) => x(value * scale.size))) {
    const at = x(tick.value * scale.size);
    plot.append(line(at, 0, at, bottom, tick.value === 0 ? 'axis' : 'grid'));
    const half = textWidth(tick.label) / 2;
    plot.append(text(Math.min(Math.max(at, half), width - half), bottom + 16, tick.label, { 'text-anchor': 'middle' }));
  }
  const base = figure.bySubject.get(baseline);
  if (base && subjects.length > 1) plot.append(line(x(base.median), 0, x(base.median), bottom, 'reference'));

  const spoken = subjects.map((subject, index) => {
    const spread = figure.bySubject.get(subject);
    const row = index * rowHeight + labelHeight;
    const middle = row + 15;
    const ratio = spread.ratio ? `×${digits(spread.ratio.median, 'ratio')}` : '';
    const value = scale.withUnit(spread.median);
    const group = svg('g', { color: styles.get(subject).color },
      svg('title', {}, [subject, value, rangeText(spread, scale), ratio, `${counted(spread.values.length, 'round')}`].filter(Boolean).join(' ')));
    if (narrow) {
      group.append(text(left, row + 1, shortened(subject, width - 140), { class: 'subject' }));
      group.append(valueLabel(width - 1, row + 1, value, ratio));
    } else {
      group.append(text(left - 10, middle + 4, shortened(subject, left - 12), { class: 'subject', 'text-anchor': 'end' }));
      group.append(valueLabel(width - 1, middle + 4, value, ratio));
    }
    group.append(marks(spread, middle, 16, x));
    const beside = companion?.bySubject.get(subject);
    if (beside) {
      group.append(svg('g', { class: 'client' },
        svg('title', {}, `${subject}, load tool: ${companion.scale.withUnit(beside.median)}`),
        svg('rect', { x: x(0), y: middle + 11, width: Math.max(0, x(beside.median) - x(0)), height: 5, rx: 1, class: 'median', opacity: 0.5 }),
        text(x(beside.median) + 5, middle + 17, scale.write(beside.median), { class: 'companion' })));
    }
    plot.append(group);
    return `${subject} ${value} ${ratio}`.trim();
  });
  plot.setAttribute('aria-label', `${figure.name}: ${spoken.join(', ')}`);
  return plot;
}

function valueLabel(x, y, value, ratio) {
  const label = svg('text', { x, y, 'text-anchor': 'end' }, svg('tspan', { class: 'value' }, value));
  if (ratio !== '') label.append(svg('tspan', {}, `  ${ratio}`));
  return label;
}

function marks(spread, middle, height, x) {
  const zero = x(0);
  const median = x(spread.median);
  const spreadOut = Math.min(3, 13 / spread.values.length);
  return svg('g', {},
    svg('rect', { x: Math.min(zero, median), y: middle - height / 2, width: Math.abs(median - zero), height, class: 'bar' }),
    line(x(spread.min), middle, x(spread.max), middle, 'range'),
    spread.values.filter(Number.isFinite).map((value, round) =>
      svg('circle', { cx: x(value), cy: middle + (round - (spread.values.length - 1) / 2) * spreadOut, r: 2.75, class: 'dot' })),
    svg('rect', { x: median - 1.5, y: middle - height / 2, width: 3, height, class: 'median' }));
}

/** Shares of a distribution that an axis of percentiles names. */
const NAMED_SHARES = [0.5, 0.9, 0.99, 0.999, 0.9999];
/** A percentile is drawn as long as this many samples lie beyond it. */
const SAMPLES_BEYOND_MIN = 10;

/** Latency by percentile, the axis stretched towards the rare slow ones; one line for each subject. */
function percentilePlot(width, height, histogram, styles, tell) {
  const lines = [...histogram.bySubject].map(([subject, merged]) => {
    const last = Math.min(0.9999, Math.max(0.5, 1 - SAMPLES_BEYOND_MIN / merged.count));
    return { subject, merged, last, end: merged.at(last) };
  });
  const lastShare = Math.max(...lines.map(({ last }) => last));
  const stretch = (share) => -Math.log10(1 - share);
  const share = (stretched) => 1 - 10 ** -stretched;
  const largest = Math.max(...lines.map(({ end }) => end));
  const smallest = Math.min(...lines.map(({ merged }) => merged.at(0.5)));
  const logarithmic = largest / smallest > 60;
  const scale = scaleOf(histogram.unit, largest);
  const direct = width >= NARROW;
  const longest = Math.max(...lines.map(({ subject }) => textWidth(subject, true)));
  const [left, right] = [46, direct ? width - Math.min(150, longest + 14) : width - 10];
  const [top, bottom] = [10, height - AXIS_HEIGHT];
  const x = (value) => left + (stretch(value) / stretch(lastShare)) * (right - left);
  const floor = logarithmic ? Math.min(...lines.map(({ merged }) => merged.at(0.05))) : 0;
  const ticks = logarithmic ? logTicks(floor / scale.size, largest / scale.size) : ticksTo(largest / scale.size, 4);
  const ceiling = logarithmic ? largest * 1.1 : ticks.at(-1).value * scale.size;
  const part = logarithmic
    ? (value) => Math.log(Math.max(value, floor) / floor) / Math.log(ceiling / floor)
    : (value) => value / ceiling;
  const y = (value) => bottom - part(value) * (bottom - top);

  const plot = svg('svg', { viewBox: `0 0 ${width} ${height}` });
  for (const tick of ticks) {
    const at = y(tick.value * scale.size);
    plot.append(line(left, at, right, at, tick.value === 0 ? 'axis' : 'grid'), text(left - 6, at + 4, tick.label, { 'text-anchor': 'end' }));
  }
  for (const named of NAMED_SHARES.filter((named) => named <= lastShare + 1e-9)) {
    plot.append(line(x(named), top, x(named), bottom, 'grid'), text(x(named), bottom + 17, `${Number((named * 100).toFixed(2))}`, { 'text-anchor': 'middle' }));
  }
  const stepWidth = 2;
  for (const { subject, merged, last } of lines) {
    const points = [];
    for (let at = left; at < x(last); at += stepWidth) {
      points.push([at, y(merged.at(share(((at - left) / (right - left)) * stretch(lastShare))))]);
    }
    points.push([x(last), y(merged.at(last))]);
    plot.append(svg('path', { d: pathOf(points), class: 'line', color: styles.get(subject).color, 'stroke-dasharray': styles.get(subject).dashes }));
  }
  if (direct) endLabels(plot, lines.map(({ subject, end, last }) => ({ subject, x: Math.max(x(last), right) + 7, y: y(end) })), styles, width, top, bottom);

  const stops = Math.floor((right - left) / stepWidth);
  const shareAt = (stop) => share((stop / stops) * stretch(lastShare));
  const cursor = line(0, top, 0, bottom, 'cursor');
  const points = lines.map(({ subject }) => svg('circle', { r: 3.5, class: 'point', color: styles.get(subject).color }));
  plot.append(cursor, ...points);
  const nearest = (at) => Math.round(((at - left) / (right - left)) * stops);
  const start = nearest(x(Math.min(0.99, lastShare)));
  walkable(plot, `${histogram.name} by percentile`, stops + 1, start, nearest, (stop) => {
    // The stop nearest a named percentile stands for exactly that one.
    const named = NAMED_SHARES.find((candidate) => candidate <= lastShare && nearest(x(candidate)) === stop);
    const at = Math.min(lastShare, named ?? shareAt(stop));
    cursor.setAttribute('x1', x(at));
    cursor.setAttribute('x2', x(at));
    const values = lines.map(({ subject, merged, last }, index) => {
      points[index].setAttribute('cx', x(Math.min(at, last)));
      points[index].setAttribute('cy', y(merged.at(Math.min(at, last))));
      return [subject, at <= last ? scale.withUnit(merged.at(at)) : 'too few samples'];
    });
    return tell(`p${Number((at * 100).toPrecision(at > 0.99 ? 4 : 3))}`, values);
  });
  return plot;
}

/** The shape of each distribution on one logarithmic axis: a row for each subject, all to the same height. */
function shapePlot(width, histogram, styles, tell) {
  const narrow = width < NARROW;
  const rows = [...histogram.bySubject];
  const longest = Math.max(...rows.map(([subject]) => textWidth(subject, true)));
  const [left, right] = [narrow ? 1 : Math.min(150, longest + 12), width - 12];
  const low = Math.max(1, Math.min(...rows.map(([, merged]) => Math.max(merged.min, merged.at(0.001)))));
  const high = Math.max(low * 1.5, ...rows.map(([, merged]) => merged.at(0.9995)));
  const bins = Math.min(64, Math.floor((right - left) / 5));
  const binOf = (value) => Math.floor((Math.log(value / low) / Math.log(high / low)) * bins);
  const bound = (bin) => low * (high / low) ** (bin / bins);
  const shares = rows.map(([, merged]) => {
    const counts = new Array(bins).fill(0);
    for (const [value, count] of merged.buckets) counts[Math.min(bins - 1, Math.max(0, binOf(Math.max(1, value))))] += count;
    return counts.map((count) => count / merged.count);
  });
  const peak = Math.max(...shares.flat());
  // As high as the plot by percentile that stands beside it, while that leaves each row its height.
  const rowHeight = narrow ? 58 : Math.min(110, Math.max(42, 262 / rows.length));
  const curveHeight = rowHeight - (narrow ? 22 : 6);
  const bottom = rows.length * rowHeight + 4;
  const scale = scaleOf(histogram.unit, high);
  const x = (value) => left + (Math.log(Math.min(Math.max(value, low), high) / low) / Math.log(high / low)) * (right - left);
  const plot = svg('svg', { viewBox: `0 0 ${width} ${bottom + AXIS_HEIGHT}` });
  const ticks = logTicks(low / scale.size, high / scale.size);
  for (const { value, label } of thinned(ticks, ({ value }) => x(value * scale.size))) {
    plot.append(line(x(value * scale.size), 0, x(value * scale.size), bottom, 'grid'), text(x(value * scale.size), bottom + 16, label, { 'text-anchor': 'middle' }));
  }
  rows.forEach(([subject, merged], row) => {
    const ground = (row + 1) * rowHeight;
    const edge = shares[row].flatMap((share, bin) => {
      const y = ground - (share / peak) * curveHeight;
      return [[x(bound(bin)), y], [x(bound(bin + 1)), y]];
    });
    const group = svg('g', { color: styles.get(subject).color },
      svg('path', { d: `${pathOf([[left, ground], ...edge, [right, ground]])}Z`, class: 'area' }),
      svg('path', { d: pathOf([[left, ground], ...edge, [right, ground]]), class: 'outline' }),
      line(x(merged.at(0.5)), ground, x(merged.at(0.5)), ground - 12, 'tick'),
      line(x(merged.at(0.99)), ground, x(merged.at(0.99)), ground - 12, 'tick'));
    group.append(narrow
      ? text(left, ground - curveHeight - 6, shortened(subject, width / 2), { class: 'subject' })
      : text(left - 10, ground - 4, shortened(subject, left - 12), { class: 'subject', 'text-anchor': 'end' }));
    plot.append(group);
  });
  const cursor = line(0, 0, 0, bottom, 'cursor');
  plot.append(cursor);
  const nearest = (at) => Math.floor(((at - left) / (right - left)) * bins);
  const start = Math.min(bins - 1, Math.max(0, binOf(rows[0][1].at(0.5))));
  walkable(plot, `${histogram.name}, how it is distributed`, bins, start, nearest, (bin) => {
    const middle = x(Math.sqrt(bound(bin) * bound(bin + 1)));
    cursor.setAttribute('x1', middle);
    cursor.setAttribute('x2', middle);
    const span = bin === 0 ? `up to ${scale.withUnit(bound(1))}`
      : bin === bins - 1 ? `from ${scale.withUnit(bound(bin))}`
        : `${scale.write(bound(bin))}–${scale.withUnit(bound(bin + 1))}`;
    return tell(span, rows.map(([subject], row) => [subject, `${(shares[row][bin] * 100).toFixed(1)}\u00a0%`]));
  });
  return plot;
}

/** Something over time, or over cycles: every round a line, from zero. */
function seriesPlot(width, height, series, styles, tell) {
  const { lines } = series;
  const all = lines.flatMap(({ points }) => points);
  const largest = largestOf(all.map(([, value]) => value));
  const scale = scaleOf(series.unit, largest);
  const ticks = ticksTo(largest / scale.size, 4);
  const subjects = [...new Set(lines.map(({ subject }) => subject))];
  const direct = width >= NARROW;
  const longest = Math.max(...subjects.map((subject) => textWidth(subject, true)));
  const [left, right] = [46, direct ? width - Math.min(150, longest + 14) : width - 12];
  const [top, bottom] = [10, height - AXIS_HEIGHT];
  const last = largestOf(all.map(([at]) => at));
  const x = (at) => left + (at / (last || 1)) * (right - left);
  const y = (value) => bottom - (value / (ticks.at(-1).value * scale.size)) * (bottom - top);
  const plot = svg('svg', { viewBox: `0 0 ${width} ${height}` });
  for (const { value, label } of ticks) {
    const at = y(value * scale.size);
    plot.append(line(left, at, right, at, value === 0 ? 'axis' : 'grid'), text(left - 6, at + 4, label, { 'text-anchor': 'end' }));
  }
  const along = ticksTo(last, width < 500 ? 3 : 6).filter(({ value }) => value <= last * 1.001);
  for (const { value, label } of thinned(along, ({ value }) => x(value))) {
    plot.append(text(x(value), bottom + 17, label, { 'text-anchor': value > last * 0.95 && !direct ? 'end' : 'middle' }));
  }
  for (const { subject, points } of lines) {
    plot.append(svg('path', {
      d: pathOf(points.map(([at, value]) => [x(at), y(value)])),
      class: lines.length > subjects.length ? 'line thin' : 'line',
      color: styles.get(subject).color,
    }));
    // A line through one point cannot be seen.
    if (points.length === 1) plot.append(svg('circle', { cx: x(points[0][0]), cy: y(points[0][1]), r: 3.5, class: 'point', color: styles.get(subject).color }));
  }
  const valueAt = (subject, at) => medianOf(lines.filter((item) => item.subject === subject).map(({ points }) => nearestPoint(points, at)[1]));
  if (direct) endLabels(plot, subjects.map((subject) => ({ subject, x: right + 7, y: y(valueAt(subject, last)) })), styles, width, top, bottom);
  const positions = [...new Set(lines.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points.map(([at]) => at))];
  const cursor = line(0, top, 0, bottom, 'cursor');
  plot.append(cursor);
  const nearest = (at) => {
    const wanted = ((at - left) / (right - left)) * last;
    return positions.reduce((best, position, index) => (Math.abs(position - wanted) < Math.abs(positions[best] - wanted) ? index : best), 0);
  };
  walkable(plot, `${series.name} over ${series.xUnit}`, positions.length, positions.length - 1, nearest, (stop) => {
    cursor.setAttribute('x1', x(positions[stop]));
    cursor.setAttribute('x2', x(positions[stop]));
    return tell(`${digits(positions[stop])} ${series.xUnit}`, subjects.map((subject) => [subject, scale.withUnit(valueAt(subject, positions[stop]))]));
  });
  return plot;
}

function nearestPoint(points, at) {
  return points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
}

function pathOf(points) {
  return points.map(([x, y], index) => `${index ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');
}

/** Names at the ends of their lines, pushed apart where they would overlap. */
function endLabels(plot, labels, styles, width, top, bottom) {
  const gap = 14;
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, index) => {
    label.y = Math.max(label.y, index ? labels[index - 1].y + gap : top);
  });
  for (let index = labels.length - 1; index >= 0; index -= 1) {
    const below = index === labels.length - 1 ? bottom : labels[index + 1].y - gap;
    labels[index].y = Math.min(labels[index].y, below);
  }
  for (const { subject, x, y } of labels) {
    plot.append(text(x, y + 4, shortened(subject, width - x), { class: 'subject', color: styles.get(subject).color }));
  }
}
