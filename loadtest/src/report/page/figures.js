// Numbers: what the reports hold, made into medians, ratios and percentiles, and told with a unit and sensible digits.

/** Steps of a unit from small to large: [size in the stored unit, what a reader sees]. */
const STEPS = {
  ns: [[1, 'ns'], [1e3, 'µs'], [1e6, 'ms'], [1e9, 's']],
  us: [[1e-3, 'ns'], [1, 'µs'], [1e3, 'ms'], [1e6, 's']],
  ms: [[1e-3, 'µs'], [1, 'ms'], [1e3, 's']],
  s: [[1e-3, 'ms'], [1, 's']],
  B: [[1, 'B'], [1024, 'KiB'], [1024 ** 2, 'MiB'], [1024 ** 3, 'GiB']],
  count: [[1, '']],
  ratio: [[1, '']],
  '1/s': [[1, '/s']],
};
/** Bytes are left whole up to here: what a connection takes is compared in them. */
const WHOLE_BYTES_MAX = 100 * 1024;

/** One way to write all values of a plot or row, chosen for its largest. */
function scaleOf(unit, largest) {
  const steps = STEPS[unit] ?? [[1, unit]];
  const whole = steps.filter(([size]) => size >= 1);
  const reached = ([size, name]) => largest >= (name === 'KiB' ? WHOLE_BYTES_MAX : size);
  // Less than a tenth of the stored unit reads better in the next smaller one.
  const step = largest > 0 && largest < 0.1 ? steps[0] : whole.findLast(reached) ?? whole[0];
  const [size, name] = step;
  const write = (value) => digits(value / size, unit);
  const suffix = name === '' ? '' : name.startsWith('/') ? name : `\u00a0${name}`;
  return { size, name, write, withUnit: (value) => (Number.isFinite(value) ? write(value) + suffix : '–') };
}

/** A value alone, in the scale that suits it. */
function told(value, unit) {
  return scaleOf(unit, Math.abs(value)).withUnit(value);
}

/** What is counted rather than measured. */
const WHOLE_UNITS = new Set(['count', 'B', '']);

/** About three significant digits, thousands apart; never more precision than a measurement has. */
function digits(value, unit = '') {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (unit === 'ratio' && size < 10) return value.toFixed(2);
  if (size >= 100 || value === 0 || (Number.isInteger(value) && WHOLE_UNITS.has(unit))) return grouped(Math.round(value));
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  return size < 0.0001 ? value.toExponential(1) : value.toPrecision(2);
}

function grouped(integer) {
  return String(integer).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** Text that is a whole number is written as one, anything else stays. */
function groupedText(text) {
  return /^\d{5,15}$/.test(text) ? grouped(text) : text;
}

/** "1 turn", "2 turns". */
function counted(count, one, many = `${one}s`) {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** Of any number of values, more than a call may have arguments. */
function largestOf(values) {
  return values.reduce((largest, value) => Math.max(largest, value), -Infinity);
}

function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** "[5.42–6.64]", or nothing where all rounds read the same. */
function rangeText(spread, scale) {
  const [min, max] = [scale.write(spread.min), scale.write(spread.max)];
  return min === max ? '' : `[${min}–${max}]`;
}

/** A histogram that can be asked for any percentile. */
function withPercentiles(histogram) {
  let total = 0;
  const cumulative = histogram.buckets.map(([, count]) => (total += count));
  /** The smallest recorded value that at least this share of all values does not exceed. */
  const at = (share) => {
    const rank = Math.max(1, Math.ceil(share * total - 1e-9));
    let low = 0;
    let high = cumulative.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle] >= rank) high = middle;
      else low = middle + 1;
    }
    return Math.min(histogram.buckets[low][0], histogram.max);
  };
  return { ...histogram, at };
}

/** One report, arranged by subject; the first subject is what the others are compared with. */
function arrange(report) {
  const summaries = report.summary.filter(({ subject }) => report.turns.some((turn) => turn.subject === subject));
  const subjects = summaries.map(({ subject }) => subject);
  const turnsOf = (subject) => report.turns.filter((turn) => turn.subject === subject);

  const figures = new Map();
  for (const { subject, figures: summed } of summaries) {
    for (const { name, unit, spread, ratio_to_first: ratio } of summed) {
      if (!figures.has(name)) figures.set(name, { name, unit, bySubject: new Map() });
      const values = turnsOf(subject).flatMap((turn) => turn.figures).filter((figure) => figure.name === name).map(({ value }) => value);
      figures.get(name).bySubject.set(subject, { ...spread, values, ratio: COMPARED_UNITS.has(unit) ? ratio : undefined });
    }
  }
  for (const figure of figures.values()) {
    const ends = [...figure.bySubject.values()].flatMap(({ min, max }) => [min, max]);
    figure.constant = report.turns.length > 1 && new Set(ends).size === 1;
    figure.scale = scaleOf(figure.unit, Math.max(...ends.map(Math.abs)));
  }

  const histograms = new Map();
  for (const { subject, histograms: summed } of summaries) {
    for (const histogram of summed.filter(({ count }) => count > 0)) {
      const { name, unit } = histogram;
      if (!histograms.has(name)) histograms.set(name, { name, unit, bySubject: new Map() });
      const rounds = turnsOf(subject).flatMap((turn) => turn.histograms).filter((item) => item.name === name && item.count > 0);
      histograms.get(name).bySubject.set(subject, { ...withPercentiles(histogram), rounds });
    }
  }
  const named = (list) => [...new Set(report.turns.flatMap((turn) => turn[list].map((item) => item.name)))];
  const series = named('series').map((name) => {
    const lines = subjects.flatMap((subject) => turnsOf(subject).flatMap((turn) =>
      turn.series.filter((item) => item.name === name && item.points.length > 0)
        .map((item) => ({ ...item, subject, round: turn.round }))));
    return { name, unit: lines[0]?.unit, xUnit: lines[0]?.x_unit, lines };
  }).filter(({ lines }) => lines.length > 0);
  const faulty = report.turns.filter((turn) => turn.reasons.length > 0 || faultWords(turn).length > 0);
  return { report, subjects, baseline: subjects[0], figures: [...figures.values()], histograms: [...histograms.values()], series, faulty };
}

/** What can be divided by the baseline's; a count or a share of a core cannot be told as "times as much". */
const COMPARED_UNITS = new Set(['ns', 'us', 'ms', 's', 'B', '1/s']);

/** What went wrong in a turn, each in words. */
function faultWords(turn) {
  const words = Object.entries(turn.faults)
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${counted(count, 'message')} ${kind}`);
  if (turn.connections_lost > 0) words.push(`${counted(turn.connections_lost, 'connection')} lost`);
  return words;
}
