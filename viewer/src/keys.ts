/** Keyboard shortcuts, active unless the focus is in an input field. */

export interface KeyActions {
  search: () => void;
  help: () => void;
  lasso: () => void;
  /** Close the region, or whatever is open on top of it. */
  clear: () => void;
  fit: () => void;
  inspect: () => void;
  zoom: (step: number) => void;
  /** Pan by a fraction of the panel, or move the region being drawn; `large` changes its size. */
  arrow: (dx: number, dy: number, large: boolean) => void;
  gene: (step: number) => void;
  panel: (number: number) => void;
  /** Returns whether Enter was used: it closes the region being drawn. */
  enter: () => boolean;
}

const ARROWS: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

function isField(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest("input, select, textarea, [contenteditable], dialog") !== null;
}

export function watchKeys(actions: KeyActions): void {
  const simple: Record<string, () => void> = {
    "/": actions.search,
    "?": actions.help,
    l: actions.lasso,
    i: actions.inspect,
    "0": actions.fit,
    "+": () => actions.zoom(0.5),
    "=": () => actions.zoom(0.5),
    "-": () => actions.zoom(-0.5),
    "[": () => actions.gene(-1),
    "]": () => actions.gene(1),
    Escape: actions.clear,
    "1": () => actions.panel(0),
    "2": () => actions.panel(1),
    "3": () => actions.panel(2),
    "4": () => actions.panel(3),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    if (event.key in ARROWS) actions.arrow(...ARROWS[event.key], event.shiftKey);
    else if (event.key === "Enter") {
      if (!actions.enter()) return;
    } else if (event.key in simple) simple[event.key]();
    else return;
    event.preventDefault();
  });
}
