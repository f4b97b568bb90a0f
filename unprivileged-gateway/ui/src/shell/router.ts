// `#/logs?q=…`: which page, and its state. Every page owns the part behind the question mark.
import { PAGES, type PageName } from '../app';

export interface Route {
  page: PageName;
  args: URLSearchParams;
}

export function readRoute(): Route {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const page = PAGES.find((name) => name === path) ?? 'overview';
  return { page, args: new URLSearchParams(query) };
}

export function routeOf(page: PageName, args: Record<string, string> = {}): string {
  const params = new URLSearchParams(Object.entries(args).filter(([, value]) => value !== ''));
  const text = params.toString();
  return `#/${page}${text ? `?${text}` : ''}`;
}

/** Changes the address without leaving the page, and without a step in the history. */
export function rewrite(page: PageName, args: Record<string, string>): void {
  history.replaceState(null, '', routeOf(page, args));
}

/** The token of the printed URL has become a cookie by now; it need not stay in the address bar or the history. */
export function forgetToken(): void {
  const url = new URL(location.href);
  if (!url.searchParams.has('token')) return;
  url.searchParams.delete('token');
  history.replaceState(null, '', url);
}
