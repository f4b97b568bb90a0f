// One thing that happens, and those who want to know. Listeners are called in order of arrival.

export class Topic<T = void> {
  private readonly listeners = new Set<(value: T) => void>();

  /** Returns the function that ends the subscription. */
  on(listener: (value: T) => void): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  tell(value: T): void {
    for (const listener of [...this.listeners]) listener(value);
  }
}
