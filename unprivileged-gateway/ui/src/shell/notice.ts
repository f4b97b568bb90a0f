// What stands above every page while the gateway does not answer or does not let us in. The numbers below stay, dimmed.
import { RETRY_MS, type Stream } from '../api/stream';
import type { Status } from '../api/types';
import { h, type Child } from '../dom/element';
import { time } from '../dom/format';

export function linkNotice(stream: Stream, status: Status | null): Child {
  const retry = `Trying again every ${RETRY_MS / 1000} s; the page picks up by itself.`;
  if (stream.link === 'gone') {
    const old = status ? `The numbers below are of ${time(status.now_ms)}. ` : '';
    return h('div.banner.lost', { 'data-testid': 'gone' }, h('b', null, 'No answer from the gateway.'), h('span', null, old, retry));
  }
  if (stream.link === 'unauthorised') {
    return h(
      'div.banner.lost',
      { 'data-testid': 'unauthorised' },
      h('b', null, 'This page needs its token.'),
      h(
        'span',
        null,
        `The gateway says: ${stream.why}. Open the URL that it printed when it started (it ends in ?token=…), or read the token from the file `,
        h('code', null, 'token'),
        ' in its storage folder (',
        h('code', null, status?.storage.path ?? 'storage.path'),
        ') and open ',
        h('code', null, `${location.origin}/?token=…`),
        `. With http.auth set, sign in as it says there. ${retry}`,
      ),
    );
  }
  return null;
}
