/**
 * Policies that are stored as a short code: a hundred bytes less in each row and in its write-ahead log. A code stands for
 * its text for good; a later default gets a code of its own.
 */

const texts: Readonly<Record<string, string>> = {
  "1":
    `{"retry":{"_tag":"exponential","maxAttempts":5,"jitter":0.2,"baseMs":1000,"factor":2,"maxMs":300000},"timeoutMs":0}`
}

const codes = new Map(Object.entries(texts).map(([code, text]) => [text, code]))

/** What is stored for a policy's text. No code is the text of a policy, which is a JSON object. */
export const policyCode = (text: string): string => codes.get(text) ?? text

export const policyText = (stored: string): string => texts[stored] ?? stored
