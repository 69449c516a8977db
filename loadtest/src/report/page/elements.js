// Elements, and a plot's coordinates. Whatever comes from a report enters the page as text, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An HTML element; `null` attributes and children are left out. */
function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) continue;
    if (name === 'color') element.style.setProperty('--color', value);
    else element.setAttribute(name, typeof value === 'number' ? String(Math.round(value * 100) / 100) : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

function text(x, y, content, attributes = {}) {
  return svg('text', { x, y, ...attributes }, content);
}

function line(x1, y1, x2, y2, className) {
  return svg('line', { x1, y1, x2, y2, class: className });
}

/** About how wide 12-pixel text is; enough to leave room for it before it is drawn. */
function textWidth(content, bold = false) {
  return content.length * (bold ? 7.2 : 6.6);
}

/** As much of a name as fits. */
function shortened(content, width) {
  const most = Math.max(4, Math.floor(width / 7.2));
  return content.length > most ? `${content.slice(0, most - 1)}…` : content;
}

/** Round values from zero, or below `least`, to at least `largest`; about `wanted` of them. */
function ticksTo(largest, wanted, least = 0) {
  const rough = (largest - least > 0 ? largest - least : 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.floor(least / step + 1e-9);
  const last = Math.max(Math.ceil(largest / step - 1e-9), first + 1);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step).map((value) => ({
    value,
    label: step >= 1 && Number.isInteger(step) ? grouped(value) : value.toFixed(decimals),
  }));
}

/** 1, 2 and 5 of every decade between two values, thinned to decades where those are many. */
function logTicks(min, max) {
  const decades = Math.log10(max / min);
  const factors = decades > 4 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= min * 0.999 && value <= max * 1.001) {
        ticks.push({ value, label: value >= 1 ? grouped(Math.round(value)) : String(Number(value.toPrecision(1))) });
      }
    }
  }
  return ticks;
}

/** Leaves out ticks whose labels would touch. */
function thinned(ticks, place) {
  let end = -Infinity;
  return ticks.filter(({ value, label }) => {
    const half = textWidth(label) / 2 + 4;
    if (place(value) - half < end) return false;
    end = place(value) + half;
    return true;
  });
}

/** A frame for a plot that is drawn anew when its width changes, so that its text keeps its size. */
function plotFrame(draw) {
  const frame = html('div', { class: 'plot' });
  let drawnWidth = 0;
  const redraw = () => {
    const width = Math.max(240, Math.floor(frame.clientWidth));
    if (width === drawnWidth) return;
    drawnWidth = width;
    frame.replaceChildren(draw(width));
  };
  pendingPlots.push(() => {
    redraw();
    // Not at once: a plot that changes its height while sizes are being told would be told again, without end.
    new ResizeObserver(() => requestAnimationFrame(redraw)).observe(frame);
  });
  return frame;
}

/** Plots need their width, so they are drawn when everything stands in the document. */
const pendingPlots = [];

/**
 * Lets a pointer, a finger or the arrow keys walk over `stops` positions of a plot. `nearest(x)` finds a stop, and
 * `show(stop)` marks it and returns what it says; a screen reader hears that as the value of a slider.
 */
function walkable(plot, label, stops, start, nearest, show) {
  let current = start;
  const move = (stop) => {
    current = Math.min(stops - 1, Math.max(0, stop));
    plot.setAttribute('aria-valuenow', current);
    plot.setAttribute('aria-valuetext', show(current));
  };
  for (const [name, value] of Object.entries({
    role: 'slider', tabindex: 0, 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': stops - 1,
  })) plot.setAttribute(name, value);
  plot.addEventListener('pointermove', (event) => {
    const box = plot.getBoundingClientRect();
    move(nearest(((event.clientX - box.left) * plot.viewBox.baseVal.width) / box.width));
  });
  plot.addEventListener('pointerleave', () => move(start));
  plot.addEventListener('keydown', (event) => {
    const far = Math.max(1, Math.round(stops / 10));
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far, Home: -stops, End: stops };
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(current + steps[event.key]);
  });
  move(start);
}
