/** How many letters have to be changed, added or taken away to make one word of the other. */
const distance = (from: string, to: string): number => {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (const [i, letter] of [...from].entries()) {
    const next = [i + 1]
    for (let j = 1; j <= to.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (letter === to[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[to.length]!
}

const plain = (word: string): string => word.toLowerCase().replaceAll(/[-_]/g, "")

/** The one of `known` that `word` was most likely meant to be. */
export const nearest = <W extends string>(word: string, known: ReadonlyArray<W>): W | undefined => {
  const wanted = plain(word)
  const best = known.map((candidate) => ({ candidate, cost: distance(wanted, plain(candidate)) }))
    .toSorted((a, b) => a.cost - b.cost)[0]
  return best !== undefined && best.cost <= Math.max(1, Math.floor(wanted.length / 3)) ? best.candidate : undefined
}
