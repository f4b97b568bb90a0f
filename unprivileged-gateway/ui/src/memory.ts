// What the page remembers between visits. A private window may refuse; then it forgets, and nothing else changes.

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(`bulkhead.${key}`);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`bulkhead.${key}`, value);
  } catch {
    // nothing to do: see the header
  }
}
