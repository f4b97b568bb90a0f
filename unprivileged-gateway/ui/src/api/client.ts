// A question to the gateway, and the four ways it can go wrong.
//
// Weakness: an answer is trusted to have the shape of types.ts; both come out of one build and ship in one binary.

export type Trouble =
  | 'gone' /* no answer at all: process or network */
  | 'unauthorised' /* 401, 403: the cookie is missing or old */
  | 'missing' /* 404: what was asked for is not (or no longer) held */
  | 'refused'; /* any other answer that is not 2xx */

export class ApiError extends Error {
  constructor(
    readonly trouble: Trouble,
    message: string,
    readonly code = 0,
  ) {
    super(message);
  }
}

const ANSWER_TIMEOUT_MS = 10_000;

export type Query = Record<string, string | number | undefined>;

/** `path` relative to the page, so that the page also works below a prefix. Empty values are left out. */
export function address(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') params.set(key, String(value));
  }
  const text = params.toString();
  return `api/v1/${path}${text ? `?${text}` : ''}`;
}

export async function ask<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const init: RequestInit = {
    headers: { accept: 'application/json' },
    cache: 'no-store',
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  };
  let response: Response;
  try {
    response = await fetch(address(path, query), init);
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError('gone', 'no answer from the gateway');
  }
  if (response.ok) {
    try {
      return (await response.json()) as T;
    } catch {
      if (signal?.aborted) throw new DOMException('left', 'AbortError');
      throw new ApiError('refused', `the answer of ${path} is not JSON`, response.status);
    }
  }
  throw new ApiError(troubleOf(response.status), await sentence(response), response.status);
}

function troubleOf(code: number): Trouble {
  if (code === 401 || code === 403) return 'unauthorised';
  return code === 404 ? 'missing' : 'refused';
}

async function sentence(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { error?: unknown };
    if (typeof body.error === 'string') return body.error;
  } catch {
    // not JSON: the status line is all there is
  }
  return `the gateway answered ${response.status} ${response.statusText}`.trim();
}
