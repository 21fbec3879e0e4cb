// The shell: which view is shown, in which language and light.

import { loadModels } from './api.js';
import { h, put, segmented } from './dom.js';
import { busy, failed } from './states.js';
import { language, setLanguage, t } from './texts.js';
import * as attention from './attention.js';
import * as prediction from './prediction.js';
import * as playground from './playground.js';
import * as machine from './machine.js';
import * as training from './training.js';
import * as learn from './learn.js';

const VIEWS = { attention, prediction, playground, machine, training, learn };
const THEME = 'malmoi-theme';
const view = document.getElementById('view');
let leave = null;
let loaded = false;

const current = () => {
  const name = location.hash.replace(/^#\//, '');
  return name in VIEWS ? name : 'attention';
};

function shell() {
  document.documentElement.lang = language();
  const name = current();
  document.title = `${t(`nav.${name}`)} · malmoi`;
  document.getElementById('skip').textContent = t('skip');
  const nav = document.getElementById('nav');
  nav.setAttribute('aria-label', t('views'));
  put(nav, Object.keys(VIEWS).map((key) => h('a', { href: `#/${key}`, 'aria-current': key === name ? 'page' : null }, t(`nav.${key}`))));
  // On a narrow screen the row of views may be wider than the screen.
  nav.scrollLeft = nav.querySelector('[aria-current]').offsetLeft - nav.clientWidth / 2;
  const theme = localStorage.getItem(THEME) || 'auto';
  put(document.getElementById('settings'),
    segmented(t('language'), [['ko', '한국어'], ['en', 'English']], language(), (value) => { setLanguage(value); show(); }),
    segmented(t('theme'), [['auto', t('theme.auto')], ['light', t('theme.light')], ['dark', t('theme.dark')]], theme, (value) => {
      localStorage.setItem(THEME, value);
      light();
      show();
    }));
}

function light() {
  const theme = localStorage.getItem(THEME) || 'auto';
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

async function show() {
  leave?.();
  leave = null;
  shell();
  const name = current();
  const body = h('div', { class: 'body' });
  put(view, h('header', { class: 'title' }, h('h1', {}, t(`${name}.title`)), h('p', {}, t(`${name}.lead`))), body);
  view.dataset.view = name;
  if (!loaded) {
    put(body, busy(t('connecting')));
    try {
      await loadModels();
      loaded = true;
    } catch (error) {
      if (error.status === 503) setTimeout(() => !loaded && show(), 2000);
      put(body, failed(error, show));
      return;
    }
    if (name !== current()) return;
  }
  put(body);
  leave = VIEWS[name].render(body) || null;
}

addEventListener('hashchange', () => {
  show();
  view.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('input, textarea, select, dialog')) return;
  const name = Object.keys(VIEWS)[Number(event.key) - 1];
  if (name) location.hash = `/${name}`;
});
document.getElementById('skip').addEventListener('click', (event) => {
  // The fragment is taken by the views.
  event.preventDefault();
  view.focus();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
light();
show();
