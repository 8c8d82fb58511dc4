/**
 * The parts of a line of Markdown that others build on: code spans, escapes and
 * entities.
 */
export type Range = readonly [start: number, end: number]

/** Code spans: a run of backticks up to the next run of the same length, within one paragraph. */
export const codeSpans = (text: string): ReadonlyArray<Range> => {
  const runs = Array.from(text.matchAll(/(\\*)(`+)|\n[ \t]*(?=\n)/g), ({ 1: escapes = "", 2: ticks = "", index }) => ({
    start: index + escapes.length,
    length: ticks.length,
    isEscaped: escapes.length % 2 === 1
  }))
  const spans: Array<Range> = []
  for (let i = 0; i < runs.length; i++) {
    const { isEscaped, length, start } = runs[i]!
    const opening = isEscaped ? length - 1 : length
    if (opening < 1) continue
    for (let j = i + 1; j < runs.length && runs[j]!.length > 0; j++) {
      if (runs[j]!.length !== opening) continue
      spans.push([start, runs[j]!.start + opening])
      i = j
      break
    }
  }
  return spans
}

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: "\"", apos: "'", nbsp: "\u00a0" }

export const decode = (text: string): string =>
  text.replace(/&(\w+);/g, (whole, name: string) => entities[name] ?? whole)

export const unescape = (text: string): string => decode(text.replace(/\\([!-/:-@[-`{-~])/g, "$1"))
