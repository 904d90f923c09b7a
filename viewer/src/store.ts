/** One dataset in the browser: everything is fetched once, and genes are cached while there is space. */
import * as api from "./api";
import type { Bounds } from "./camera";
import { boundsOf, makeCloud, type Cloud } from "./cloud";

const ROOM = 256 * 2 ** 20; // bytes of genes kept

export class Store {
  positions: Float32Array = new Float32Array(0);
  genes: api.Genes = { names: [], measured: [], in_tissue: [], reliability: [] };
  private ordered: Cloud | null = null;
  private readonly columns = new Map<string, Promise<Float32Array | Uint16Array>>();
  private readonly values = new Map<string, Promise<api.Values>>();
  private readonly arrived = new Map<string, Float32Array | Uint16Array>();
  private loading: Promise<void> | null = null;

  constructor(readonly dataset: api.Dataset) {}

  /** Positions and genes. */
  load(): Promise<void> {
    this.loading ??= Promise.all([this.loadPositions(), api.getGenes(this.dataset)]).then(([, genes]) => {
      this.genes = genes;
    });
    return this.loading;
  }

  async loadPositions(): Promise<void> {
    if (!this.positions.length) this.positions = await api.getPositions(this.dataset);
  }

  /** The drawing order; made when first asked for. */
  get cloud(): Cloud {
    this.ordered ??= makeCloud(this.positions);
    return this.ordered;
  }

  /** The box around the cells that are not hidden. */
  cloudBounds(hidden: Uint8Array): Bounds {
    return boundsOf(this.positions, this.cloud.order.filter((cell) => !hidden[cell]));
  }

  column(column: api.Column): Promise<Float32Array | Uint16Array> {
    return this.once(this.columns, column.name, () => api.getColumn(this.dataset, column), (values) => {
      this.arrived.set(column.name, values);
    });
  }

  gene(gene: string, layer: api.ValueLayer): Promise<api.Values> {
    const key = `${layer}\0${gene}`;
    const most = Math.max(6, Math.floor(ROOM / (4 * this.dataset.cells + 1)));
    while (this.values.size > most) {
      const [oldest] = this.values.keys();
      this.values.delete(oldest);
      this.arrived.delete(oldest);
    }
    return this.once(this.values, key, () => api.getValues(this.dataset, gene, layer), (found) => {
      this.arrived.set(key, found.values);
    });
  }

  /** A value of a cell, if it is here already. */
  known(cell: number, name: string, layer?: api.ValueLayer): number | undefined {
    return this.arrived.get(layer ? `${layer}\0${name}` : name)?.[cell];
  }

  private once<T>(kept: Map<string, Promise<T>>, key: string, fetch: () => Promise<T>, note: (found: T) => void): Promise<T> {
    const found = kept.get(key);
    if (found) {
      kept.delete(key); // moved to the end: the least recently used gene is removed first
      kept.set(key, found);
      return found;
    }
    const asked = fetch();
    kept.set(key, asked);
    asked.then(note, () => kept.delete(key)); // an error is not kept
    return asked;
  }
}

/** The default gene: the most reliable measured gene, or the most reliable of all. */
export function likelyGene(genes: api.Genes): string | null {
  let best = -1;
  const worth = (gene: number): number => (genes.reliability[gene] ?? -1) + (genes.measured[gene] ? 10 : 0);
  genes.names.forEach((_, gene) => {
    if (best < 0 || worth(gene) > worth(best)) best = gene;
  });
  return best < 0 ? null : genes.names[best];
}
