// Builds the page from the reports that are embedded in it, and says in <html data-state> how that went.

const COLORS = 7;
const DASHES = [null, null, '12 4', '2 3.5', '9 3 2 3', '6 4', '16 3 4 3', '1 4'];
/** Words that name whose CPU it is; a server's figure is drawn with the load tool's own beneath. */
const SERVER_WORD = /\bserver\b/i;

function main() {
  const arranged = JSON.parse(document.getElementById('data').textContent).map(arrange);
  const styles = stylesOf(arranged);
  const titles = titlesOf(arranged.map(({ report }) => report));
  drawTop(arranged);
  drawVerdict(arranged, titles);
  drawContents(arranged, titles);
  document.getElementById('scenarios').append(...arranged.map((item, index) => scenario(item, titles[index], `scenario-${index + 1}`, styles, arranged)));
  drawReading();
  for (const draw of pendingPlots) draw();
}

/** One look for a subject on the whole page: the baseline is ink, the others take colours in order of appearance. */
function stylesOf(arranged) {
  const styles = new Map();
  let next = 1;
  for (const subject of arranged.flatMap(({ subjects }) => subjects)) {
    if (styles.has(subject)) continue;
    if (subject === 'raw') {
      styles.set(subject, { color: 'var(--subject-0)', dashes: null });
      continue;
    }
    const round = Math.floor((next - 1) / COLORS);
    const color = ((next - 1) % COLORS) + 1;
    styles.set(subject, { color: `var(--subject-${color})`, dashes: DASHES[(color + round) % DASHES.length] });
    next += 1;
  }
  return styles;
}

/** What tells scenarios of the same name apart: the parts of their load that differ. */
function titlesOf(reports) {
  return reports.map((report) => {
    const same = reports.filter(({ scenario }) => scenario === report.scenario);
    const differs = ([name, value]) => same.some(({ load }) => load.find(([other]) => other === name)?.[1] !== value);
    const detail = report.load.filter(differs).map(([name, value]) => `${name} ${groupedText(value)}`).join(', ');
    return { name: report.scenario, detail };
  });
}

function drawTop(arranged) {
  const turns = arranged.flatMap(({ report }) => report.turns);
  const faulty = arranged.flatMap((item) => item.faulty).length;
  const sentences = [
    `${counted(arranged.length, 'scenario')}, ${counted(turns.length, 'turn')}; in each turn one server is started afresh, driven, and watched.`,
    faulty > 0 ? `${counted(faulty, 'turn')} had faults.` : 'No message was lost, doubled, reordered or unknown.',
  ];
  document.getElementById('lead').append(sentences.join(' '));
  if (arranged.length === 1) document.getElementById('title').textContent = `Fanwire load test: ${arranged[0].report.scenario}`;
  document.title = document.getElementById('title').textContent;
  if (sameMachine(arranged)) document.getElementById('conditions').append(...facts(machineFacts(arranged[0].report.machine)));
}

function sameMachine(arranged) {
  return new Set(arranged.map(({ report }) => JSON.stringify(report.machine))).size === 1;
}

/** Everything the machine is described by, nested descriptions by their path. */
function machineFacts(machine, prefix = '') {
  return Object.entries(machine).flatMap(([key, value]) => {
    const name = `${prefix}${key.replaceAll('_', ' ')}`;
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return machineFacts(value, `${name}, `);
    if (value === null) return [];
    if (key.endsWith('_bytes')) return [[name.replace(/ bytes$/, ''), told(value, 'B')]];
    return [[name, Array.isArray(value) ? value.join(', ') : String(value)]];
  });
}

/** What each server is made of and where it ran; a subject's name stays as it is written. */
function serverFacts(servers) {
  return servers.map(({ subject, versions, placement }) => [`server ${subject}`, [...(versions.length ? versions : ['version unknown']), placement].join(', ')]);
}

function facts(pairs) {
  return pairs.map(([name, value]) => html('div', {}, html('dt', {}, capital(name)), html('dd', {}, groupedText(String(value)))));
}

function capital(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function drawVerdict(arranged, titles) {
  const bounds = arranged.flatMap(({ report }, index) => report.bounds.map((bound) => ({ bound, index })));
  if (bounds.length === 0) return;
  const section = document.getElementById('verdict');
  const met = bounds.filter(({ bound }) => bound.met).length;
  const broken = bounds.filter(({ bound }) => isBroken(bound)).length;
  const open = bounds.length - met - broken;
  section.append(
    html('h2', { id: 'verdict-heading' }, 'Verdict'),
    html('p', { class: 'tally' }, met < bounds.length
      ? [`${met} of ${bounds.length} bounds met, `, html('b', { class: broken ? 'broken' : null }, `${broken} not met`), open ? `, ${open} not judged.` : '.']
      : html('b', {}, bounds.length === 1 ? 'The bound is met.' : `All ${bounds.length} bounds are met.`)),
    html('ul', { class: 'bounds' }, bounds.map(({ bound, index }) => verdict(bound, arranged.length > 1 ? titles[index] : null, index))));
  section.hidden = false;
}

/** A bound is met, not met, or could not be judged; behind a colon stands why. */
function isBroken(bound) {
  return bound.verdict.startsWith('not met');
}

function verdict(bound, title, index) {
  const [word, why] = bound.verdict.split(': ');
  const scale = scaleOf(bound.unit, bound.at_most);
  const where = title ? html('a', { href: `#scenario-${index + 1}` }, ` ${titleText(title)}`) : null;
  return html('li', { class: bound.met ? null : isBroken(bound) ? 'broken' : 'open' },
    html('span', { class: 'mark' }, `${bound.met ? '✓' : isBroken(bound) ? '✗' : '–'} ${word}`),
    html('span', { class: 'name' }, bound.name, where, why ? html('small', {}, ` ${why}`) : null),
    gauge(bound),
    html('span', { class: 'values' }, html('b', {}, scale.withUnit(bound.measured ?? NaN)), html('span', {}, ` of at most ${scale.withUnit(bound.at_most)}`)));
}

/** How far the measured value reaches towards its bound, which stands at two thirds. */
function gauge({ measured, at_most: bound }) {
  const width = 136;
  const at = (width * 2) / 3;
  const reach = !Number.isFinite(measured) ? 0 : bound > 0 ? Math.min(1.5, measured / bound) : measured > 0 ? 1.5 : 0;
  return svg('svg', { viewBox: `0 0 ${width} 14`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { x: 0, y: 4, width, height: 6, rx: 1, class: 'gauge-track' }),
    svg('rect', { x: 0, y: 4, width: at * reach, height: 6, rx: 1, class: 'gauge-value' }),
    line(at, 0, at, 14, 'gauge-bound'));
}

function titleText({ name, detail }) {
  return detail ? `${name} (${detail})` : name;
}

function drawContents(arranged, titles) {
  if (arranged.length < 2) return;
  const contents = document.getElementById('contents');
  contents.append(html('ul', {}, titles.map((title, index) =>
    html('li', {}, html('a', { href: `#scenario-${index + 1}`, class: arranged[index].faulty.length > 0 ? 'broken' : null }, titleText(title))))));
  contents.hidden = false;
}

function scenario(item, title, id, styles, arranged) {
  const { report, subjects } = item;
  const cards = [figureCards(item, styles), histogramCards(item, styles), seriesCards(item, styles)].filter((group) => group.length > 0);
  return html('section', { class: 'scenario', id, 'aria-labelledby': `${id}-heading`, 'data-plots': cards.flat().length },
    html('h2', { id: `${id}-heading` }, title.name, title.detail ? html('small', {}, ` ${title.detail}`) : null),
    html('p', { class: 'about' }, capital(report.about)),
    html('dl', { class: 'facts' }, facts([...(sameMachine(arranged) ? [] : machineFacts(report.machine)), ...report.load, ...serverFacts(report.servers)])),
    command(report.command),
    faults(item),
    html('ul', { class: 'legend', 'aria-label': 'Subjects' },
      subjects.map((subject) => legendItem(subject, styles.get(subject), subject === item.baseline && subjects.length > 1)),
      item.figures.some((figure) => companionOf(figure, item)) ? html('li', {},
        svg('svg', { viewBox: '0 0 26 12', 'aria-hidden': 'true' }, svg('rect', { x: 0, y: 3, width: 26, height: 6, class: 'box' })),
        'CPU of the load tool itself') : null),
    cards.map((group) => html('div', { class: 'cards' }, group)),
    medianTable(item, styles),
    item.histograms.map((histogram) => percentileTable(histogram, styles)),
    notes(item),
    turnTable(item));
}

function command(words) {
  const [program = '', ...rest] = words;
  const quoted = [program.split('/').at(-1), ...rest].map(shellQuoted);
  const shown = quoted.join(' ');
  const code = html('code', {}, quoted.flatMap((word) => [html('span', {}, word), ' ']));
  const button = html('button', { type: 'button' }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(shown);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 2000);
    } catch {
      // A page from a file may have no clipboard; what is selected can be copied by hand.
      getSelection().selectAllChildren(code);
    }
  });
  return html('div', { class: 'command' }, html('pre', {}, code), button);
}

function shellQuoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function faults({ report, faulty }) {
  if (faulty.length === 0) {
    return html('p', { class: 'whole' }, `✓ ${counted(report.turns.length, 'turn')}: no message lost, doubled, reordered or unknown, no connection lost.`);
  }
  return html('div', { class: 'alarm' },
    html('strong', {}, `${counted(faulty.length, 'turn')} of ${report.turns.length} had faults`),
    html('ul', {}, faulty.map((turn) => html('li', {},
      `${turn.subject}, round ${turn.round}: ${faultWords(turn).join(', ') || 'failed'}`,
      turn.reasons.length > 0 ? html('ul', {}, turn.reasons.map((reason) => html('li', {}, reason))) : null))));
}

function legendItem(subject, style, isBaseline) {
  return html('li', {}, swatch(style), isBaseline ? `${subject} (baseline)` : subject);
}

function swatch({ color, dashes }) {
  return svg('svg', { viewBox: '0 0 26 12', 'aria-hidden': 'true', color },
    svg('line', { x1: 2, y1: 6, x2: 24, y2: 6, class: 'line', 'stroke-dasharray': dashes }));
}

/** The load tool's own figure of the same kind, which shows that it was not the bottleneck. */
function companionOf(figure, { figures }) {
  if (!SERVER_WORD.test(figure.name)) return null;
  const name = figure.name.replace(SERVER_WORD, 'client');
  return figures.find((other) => other.name.toLowerCase() === name.toLowerCase() && other.unit === figure.unit) ?? null;
}

function figureCards(item, styles) {
  const companions = new Set(item.figures.map((figure) => companionOf(figure, item)));
  // Plain counts say how much was done, not how well, and a constant was asked for: they stand in the tables.
  const shown = item.figures.filter((figure) => figure.unit !== 'count' && !figure.constant && !companions.has(figure));
  // Taller plots first, so that neighbours are of one height.
  const [taller, others] = [shown.filter((figure) => companionOf(figure, item)), shown.filter((figure) => !companionOf(figure, item))];
  return [...taller, ...others].map((figure) => card(figure.name, figure.scale.name,
    plotFrame((width) => rangePlot(width, figure, companionOf(figure, item), styles, item.baseline))));
}

function histogramCards({ histograms }, styles) {
  return histograms.flatMap((histogram) => [
    readCard(`${histogram.name} by percentile`, unitOf(histogram), (width, tell) => percentilePlot(width, 290, histogram, styles, tell), styles),
    readCard(`${histogram.name}, how it is distributed`, `${unitOf(histogram)}, ticks: p50 and p99`, (width, tell) => shapePlot(width, histogram, styles, tell), styles),
  ]);
}

function unitOf(histogram) {
  return scaleOf(histogram.unit, Math.max(...[...histogram.bySubject.values()].map((merged) => merged.at(0.999)))).name;
}

function seriesCards({ series }, styles) {
  // Dashes would tear what moves up and down with every point.
  const solid = new Map([...styles].map(([subject, { color }]) => [subject, { color, dashes: null }]));
  return series.map((one) => {
    const unit = scaleOf(one.unit, largestOf(one.lines.flatMap(({ points }) => points.map(([, value]) => value)))).name;
    return readCard(one.name, [unit, `over ${one.xUnit === 's' ? 'seconds' : one.xUnit}`].filter(Boolean).join(' '), (width, tell) => seriesPlot(width, 240, one, solid, tell), solid);
  });
}

function card(name, detail, ...content) {
  return html('figure', { class: 'card' },
    html('figcaption', {}, html('h3', {}, capital(name)), detail ? html('span', {}, detail) : null),
    content);
}

/** A card whose plot can be walked over, with a line beneath that says what stands at the cursor. */
function readCard(name, detail, draw, styles) {
  const readout = html('ul', { class: 'legend readout', 'aria-hidden': 'true' });
  const tell = (where, values) => {
    readout.replaceChildren(html('li', {}, html('b', {}, where)), ...values.map(([subject, value]) =>
      html('li', {}, swatch(styles.get(subject)), `${subject} `, html('b', {}, value))));
    return `${where}: ${values.map(([subject, value]) => `${subject} ${value}`).join(', ')}`;
  };
  return card(name, detail, plotFrame((width) => draw(width, tell)), readout);
}

function medianTable(item, styles) {
  const { subjects, figures, baseline, report } = item;
  const rounds = new Set(report.turns.map((turn) => turn.round)).size;
  const caption = [
    rounds > 1 ? `Medians of ${rounds} rounds [lowest–highest]` : 'One round',
    subjects.length > 1 ? `× is times ${baseline}, with the range of single rounds` : null,
  ].filter(Boolean).join('; ');
  return table(caption, ['', ...subjects], figures.map((figure) => [capital(figure.name), ...subjects.map((subject) => {
    const spread = figure.bySubject.get(subject);
    if (!spread) return '–';
    const scale = scaleOf(figure.unit, spread.max);
    const { ratio } = spread;
    return [
      html('b', {}, scale.withUnit(spread.median)),
      small(rangeText(spread, scale)),
      ratio ? small(`×${digits(ratio.median, 'ratio')} ${rangeText(ratio, scaleOf('ratio', 1))}`) : null,
    ];
  })]), styles);
}

function small(content) {
  return content === '' ? null : html('small', {}, content);
}

function percentileTable(histogram, styles) {
  const points = [['p50', 0.5, 'p50'], ['p90', 0.9, 'p90'], ['p99', 0.99, 'p99'], ['p99.9', 0.999, 'p999']];
  const rows = [...histogram.bySubject].map(([subject, merged]) => [
    subject,
    ...points.map(([, share, field]) => {
      const value = merged.at(share);
      const median = medianOf(merged.rounds.map((round) => round[field]));
      return [html('b', {}, told(value, histogram.unit)), merged.rounds.length > 1 ? small(told(median, histogram.unit)) : null];
    }),
    told(merged.max, histogram.unit),
    grouped(merged.count),
  ]);
  return table(`${capital(histogram.name)}: percentiles of all rounds together; beneath, the median of the rounds' own`,
    ['', ...points.map(([name]) => name), 'largest', 'samples'], rows, styles);
}

function notes({ report }) {
  const notesOf = (turn) => (turn.not_at_pace ? [...turn.notes, `not at its pace: ${turn.not_at_pace}`] : turn.notes);
  const lines = report.turns.flatMap((turn) => notesOf(turn).map((note) => ({ turn, note })));
  if (lines.length === 0) return null;
  const byText = Map.groupBy(lines, ({ turn, note }) => JSON.stringify([turn.subject, note]));
  return html('div', {}, html('h3', { class: 'part' }, 'Notes'), html('ul', { class: 'notes' }, [...byText.values()].map((same) => {
    const rounds = same.map(({ turn }) => turn.round);
    const where = rounds.length === 1 ? `round ${rounds[0]}` : `rounds ${rounds.join(', ')}`;
    return html('li', {}, html('b', {}, same[0].turn.subject), ` (${where}): ${same[0].note}`);
  })));
}

function turnTable({ report, figures }) {
  const rows = report.turns.map((turn) => [
    `${turn.round} ${turn.subject}`,
    ...figures.map(({ name, unit }) => told(turn.figures.find((figure) => figure.name === name)?.value ?? NaN, unit)),
    faultWords(turn).join(', ') || (turn.reasons.length > 0 ? 'failed' : 'none'),
  ]);
  return html('details', {}, html('summary', {}, `Every turn (${report.turns.length})`),
    table('Turns in the order in which they were made', ['round and subject', ...figures.map(({ name }) => name), 'faults'], rows, new Map()));
}

function table(caption, heads, rows, styles) {
  return html('div', { class: 'frame', tabindex: 0, role: 'group', 'aria-label': caption },
    html('table', {},
      html('caption', {}, html('span', {}, caption)),
      html('thead', {}, html('tr', {}, heads.map((head) => head === '' ? html('td') : html('th', { scope: 'col', ...look(styles.get(head)) }, head)))),
      html('tbody', {}, rows.map(([head, ...cells]) => html('tr', {},
        html('th', { scope: 'row', ...look(styles.get(head)) }, head),
        cells.map((cell) => html('td', {}, cell)))))));
}

function look(style) {
  return style ? { class: 'subject', color: style.color } : {};
}

function drawReading() {
  document.getElementById('reading').append(
    html('p', {}, 'How to read it: a bar ends at the median of the rounds, each round is a dot, and the line through them is their range; differences smaller than the ranges are noise. Times, sizes and rates begin at zero. The dashed line continues the baseline.'),
    html('p', {}, 'Latency is the time from the publisher\'s write to the client\'s read. CPU is what the processes spent on a core; where the load tool took nearly all of its own, it may have been the limit, not the server.'),
    html('p', {}, 'Plots can be walked over with a pointer or, when focused, with the arrow keys. All data, histograms included, is inside this file.'));
}

const root = document.documentElement;
const fail = (error) => {
  root.dataset.state = 'failed';
  const failure = document.getElementById('failure');
  failure.textContent = `The page could not be drawn: ${error}`;
  failure.hidden = false;
};
addEventListener('error', (event) => fail(event.message));
try {
  main();
  root.dataset.state = 'drawn';
} catch (error) {
  fail(error);
}
