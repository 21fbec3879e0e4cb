// What a view shows when there is nothing to show: nothing yet, at work, or refused.

import { h } from './dom.js';
import { t } from './texts.js';

/** Nothing here, why, and the command that changes it. */
export const empty = (title, text, command) =>
  h('div', { class: 'state', 'data-state': 'empty' }, h('strong', {}, title), h('p', {}, text), command ? h('code', { class: 'command' }, command) : null);

/** At work. */
export const busy = (text = t('working')) =>
  h('div', { class: 'state busy', role: 'status', 'data-state': 'busy' }, h('span', { class: 'pulse', 'aria-hidden': 'true' }), text);

/** Refused: the server's words, and another try. */
export const failed = (error, again) =>
  h('div', { class: 'state failed', role: 'alert', 'data-state': 'failed' },
    h('strong', {}, error.status === 0 ? t('unreachable') : error.status === 503 ? t('notReady') : error.status === 429 ? t('tooBusy') : t('refused')),
    h('p', {}, error.status === 0 ? t('unreachableText') : error.message),
    again ? h('button', { type: 'button', class: 'quiet', onclick: again }, t('again')) : null);

/** Asks for the server's key; null when none is given. */
export function askKey() {
  const dialog = document.getElementById('dialog');
  if (dialog.open) return Promise.resolve(null);
  return new Promise((resolve) => {
    const input = h('input', { type: 'password', autocomplete: 'off', required: true, 'aria-label': t('key') });
    const form = h('form', { method: 'dialog' },
      h('h2', {}, t('key')), h('p', {}, t('keyText')), input,
      h('div', { class: 'actions' },
        h('button', { type: 'button', class: 'quiet', onclick: () => dialog.close('') }, t('cancel')),
        h('button', { type: 'submit' }, t('go'))));
    form.addEventListener('submit', () => (dialog.returnValue = input.value));
    dialog.replaceChildren(form);
    dialog.returnValue = '';
    dialog.addEventListener('close', () => resolve(dialog.returnValue || input.value || null), { once: true });
    dialog.showModal();
  });
}
