// The life of a page: timers, listeners and requests that end when the reader goes elsewhere.

export class Scope {
  private readonly ends: (() => void)[] = [];
  private readonly abort = new AbortController();
  readonly signal = this.abort.signal;

  add(end: () => void): void {
    this.ends.push(end);
  }

  end(): void {
    this.abort.abort();
    for (const end of this.ends.splice(0)) end();
  }

  /** Now and every `ms`, but not in a hidden tab. */
  every(ms: number, run: () => void): void {
    run();
    const id = setInterval(() => {
      if (!document.hidden) run();
    }, ms);
    this.add(() => clearInterval(id));
  }

  /** At most `fps` times a second, not in a hidden tab. A timer, not animation frames: 60 wake-ups a second cost more than the drawing. */
  frames(fps: number, run: (seconds: number) => void): void {
    const id = setInterval(() => {
      if (!document.hidden) run(performance.now() / 1000);
    }, 1000 / fps);
    this.add(() => clearInterval(id));
  }

  listen(target: EventTarget, event: string, run: (event: Event) => void): void {
    target.addEventListener(event, run, { signal: this.signal });
  }

  after(ms: number, run: () => void): () => void {
    const id = setTimeout(run, ms);
    const stop = () => clearTimeout(id);
    this.add(stop);
    return stop;
  }
}
