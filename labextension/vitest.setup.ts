/** What Lab's packages take for granted in a browser and jsdom lacks. */
class NoResizes implements ResizeObserver {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
}

class NoSight implements IntersectionObserver {
  readonly root = null;
  readonly rootMargin = '';
  readonly thresholds = [];
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
  takeRecords(): IntersectionObserverEntry[] {
    return [];
  }
}

class NoMatch extends EventTarget implements MediaQueryList {
  readonly matches = false;
  readonly onchange = null;

  constructor(readonly media: string) {
    super();
  }

  addListener(): void {}
  removeListener(): void {}
}

globalThis.DragEvent ??= class extends MouseEvent {} as typeof DragEvent;
globalThis.IntersectionObserver ??= NoSight;
globalThis.ResizeObserver ??= NoResizes;
window.matchMedia ??= query => new NoMatch(query);
