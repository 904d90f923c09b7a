/** Genes that match the typed text. Pure. */

/** 0: the same; 1: begins so; 2: a part after a dash, dot or underscore begins so; 3: somewhere inside; else none. */
function rank(name: string, query: string): number {
  const at = name.indexOf(query);
  if (at < 0) return 4;
  if (at === 0) return name.length === query.length ? 0 : 1;
  return /[-._ ]/.test(name[at - 1]) ? 2 : 3;
}

export class GeneSearch {
  private readonly lower: string[];

  constructor(names: readonly string[]) {
    this.lower = names.map((name) => name.toLowerCase());
  }

  /** Numbers of the genes that match, best first: prefix before inside, short before long, else file order. */
  find(query: string, most: number): number[] {
    const wanted = query.trim().toLowerCase();
    if (!wanted) return this.lower.slice(0, most).map((_, gene) => gene);
    const ranked: [number, number, number][] = [];
    this.lower.forEach((name, gene) => {
      const found = rank(name, wanted);
      if (found < 4) ranked.push([found, name.length, gene]);
    });
    ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    return ranked.slice(0, most).map(([, , gene]) => gene);
  }

  /** The gene of exactly this name, whatever its case; -1 if there is none. */
  exact(query: string): number {
    return this.lower.indexOf(query.trim().toLowerCase());
  }
}
