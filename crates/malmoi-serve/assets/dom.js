// Elements in one call. No markup is ever parsed from text, so what a model writes stays text.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'vars') for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; `vars` are custom properties, `onclick` and the like are listeners. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Replaces what a node holds. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return node;
}

/** A labelled control. */
export const field = (label, control, hint) =>
  h('label', { class: 'field' }, h('span', {}, label), control, hint ? h('small', {}, hint) : null);

/** A choice among values; entries are `[value, label]`. */
export const choice = (entries, value, onchange) =>
  h('select', { onchange: (event) => onchange(event.target.value) },
    entries.map(([key, label]) => h('option', { value: key, selected: String(key) === String(value) }, label)));

/** A row of buttons of which one is pressed. */
export const segmented = (label, entries, value, onchange) =>
  h('div', { class: 'segmented', role: 'group', 'aria-label': label },
    entries.map(([key, text]) =>
      h('button', { type: 'button', 'aria-pressed': String(key === value), onclick: () => onchange(key) }, text)));

/** Moves the focus among the buttons of a strip with the arrow keys. */
export function arrows(strip, selector = 'button') {
  strip.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const all = [...strip.querySelectorAll(selector)].filter((button) => !button.disabled);
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    all[(at + step + all.length) % all.length].focus();
  });
  return strip;
}

/** What a piece of a vocabulary looks like on a chip: spaces and line ends are shown, not swallowed. */
export function shown(text) {
  const visible = text.replace(/\n/g, '⏎').replace(/\t/g, '⇥');
  return visible.trim() === '' ? '␣'.repeat(Math.max(visible.length, 1)) : visible;
}

/** Calls `draw(width)` now and whenever the node's width changes, as long as the node is in the page. */
export function onWidth(node, draw) {
  let last = 0;
  const observer = new ResizeObserver(() => {
    if (!node.isConnected) return observer.disconnect();
    const width = Math.floor(node.clientWidth);
    if (width > 0 && width !== last) draw((last = width));
  });
  observer.observe(node);
}
