/**
 * Programs for processes of their own, compiled as the `orrery` command is: they start in half a second, where loading their
 * sources one by one takes three.
 */

interface Compiler {
  readonly compile: (entry: string) => Promise<string>
}

/** The compiled program of a TypeScript file, for `node`. */
export const compiled = async (entry: string): Promise<string> => {
  // Plain JavaScript outside of this program, so that it finds the sources.
  const { compile } = await import(new URL("../../cli/compile.mjs", import.meta.url).href) as Compiler
  return compile(entry)
}
