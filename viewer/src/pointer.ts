/** Pan, zoom, pinch, lasso, hover and click on the panels. */
import type { Camera, Lens } from "./camera";

export interface PointerActions {
  lens: () => Lens;
  look: (camera: Camera) => void;
  /** Whether a plain drag draws a lasso. */
  lassoing: () => boolean;
  /** The lasso so far, in the data's units; `done` when the pointer was lifted. */
  lasso: (polygon: number[], done: boolean) => void;
  hover: (point: [number, number] | null, event: PointerEvent) => void;
  click: (point: [number, number], event: PointerEvent) => void;
}

const CLICK = 4; // pixels that the pointer may move during a click
const WHEEL = 0.0022; // powers of two per wheel pixel

export function watchPointer(element: HTMLElement, actions: PointerActions): void {
  const down = new Map<number, [number, number]>();
  let path: number[] | null = null;
  let travelled = 0;

  const at = (event: MouseEvent): [number, number] => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    travelled = 0;
    path = down.size === 1 && (actions.lassoing() || event.shiftKey) ? [...actions.lens().toData(...at(event))] : null;
  });

  element.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    const now = at(event);
    if (!before) {
      actions.hover(event.pointerType === "touch" ? null : actions.lens().toData(...now), event);
      return;
    }
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (path) {
      path.push(...actions.lens().toData(...now));
      actions.lasso(path, false);
    } else if (down.size === 1) {
      if (travelled > CLICK) actions.look(actions.lens().panned(now[0] - before[0], now[1] - before[1]));
    } else {
      const other = [...down].find(([id]) => id !== event.pointerId)?.[1] ?? now;
      const step = Math.log2(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.hypot(before[0] - other[0], before[1] - other[1]));
      if (Number.isFinite(step)) actions.look(actions.lens().zoomed(step, other[0], other[1]));
    }
    down.set(event.pointerId, now);
  });

  const lift = (event: PointerEvent): void => {
    if (!down.delete(event.pointerId)) return;
    const finished = path;
    path = null;
    if (finished && event.type === "pointerup") actions.lasso(finished, true);
    else if (travelled <= CLICK && event.type === "pointerup") actions.click(actions.lens().toData(...at(event)), event);
  };
  element.addEventListener("pointerup", lift);
  element.addEventListener("pointercancel", lift);
  element.addEventListener("pointerleave", (event) => actions.hover(null, event));

  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 18 : 1;
    actions.look(actions.lens().zoomed(-event.deltaY * lines * WHEEL, ...at(event)));
  }, { passive: false });

  element.addEventListener("dblclick", (event) => actions.look(actions.lens().zoomed(1, ...at(event))));
}
