// Is the probe there, and if not, what is to be done? The same words on Probe and on Profiles.
import type { ProbeAnswer } from '../api/types';
import { h } from '../dom/element';
import * as format from '../dom/format';
import { link, paste } from '../dom/parts';

const SOCKET = '/run/bulkhead/probe.sock';

/** Why no data of the probe is here, in one sentence; null while it is connected. */
export function absence(answer: ProbeAnswer): string | null {
  if (answer.connected) return null;
  if (!answer.configured) return 'No probe is configured, so none is expected.';
  return `No probe answers on ${answer.socket || SOCKET}.`;
}

/** The sentence, the last error, and the lines that change it. */
export function disconnected(answer: ProbeAnswer): HTMLElement {
  const socket = answer.socket || SOCKET;
  const error = answer.last_error;
  const steps = answer.configured
    ? [
        h('p.t2', null, 'Start it beside the gateway, as root. It loads its programs, gives up what it no longer needs, and connects by itself; this page follows.'),
        paste(`probe --socket ${socket}`, 'Command that starts the probe').el,
        h('p.t2', null, 'If it does start and is not let in, this says what it finds and what it needs:'),
        paste('probe doctor', 'Command that checks the machine').el,
      ]
    : [
        h('p.t2', null, 'Add this line to the configuration and start the gateway again:'),
        paste(`probe: { socket: ${SOCKET} }`, 'Line to add').el,
        h('p.t2', null, 'Then start the probe, as root:'),
        paste(`probe --socket ${SOCKET}`, 'Command that starts the probe').el,
      ];
  return h(
    'div.empty',
    { 'data-testid': 'no-probe' },
    h('p.big', null, 'No probe connected.'),
    h('p', null, absence(answer) ?? '', error ? h('span.wait', null, ` Last error, ${format.time(error.at_ms)}: ${error.text}`) : null),
    steps,
    h('p.dim', null, 'The probe is a second process, the only one with a privilege: it samples stacks and opens log files. Without it the gateway still takes OTLP, the journal and the numbers of this host. ', link('Configuration in force', '#/config')),
  );
}
