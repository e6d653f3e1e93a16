// Lint and format in one tool; `node scripts/run.mjs check --fix` formats, in the style of Effect itself: two spaces,
// double quotes, no semicolons, no trailing commas, 120 columns.
import effect from "@effect/eslint-plugin"
import { fileURLToPath } from "node:url"
import tseslint from "typescript-eslint"

const root = fileURLToPath(new URL("..", import.meta.url))

const format = {
  "@effect/dprint": ["error", {
    config: {
      indentWidth: 2,
      lineWidth: 120,
      operatorPosition: "maintain",
      semiColons: "asi",
      quoteStyle: "alwaysDouble",
      trailingCommas: "never",
      "arrowFunction.useParentheses": "force",
      "typeLiteral.separatorKind.singleLine": "semiColon",
      "module.sortImportDeclarations": "maintain",
      "module.sortExportDeclarations": "maintain"
    }
  }]
}

const meaning = {
  eqeqeq: "error",
  "no-constant-condition": ["error", { checkLoops: false }],
  "no-var": "error",
  "object-shorthand": "error",
  "prefer-const": "error"
}

const typed = {
  "@typescript-eslint/array-type": ["error", { default: "generic" }],
  "@typescript-eslint/await-thenable": "error",
  "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
  "@typescript-eslint/no-explicit-any": "error",
  "@typescript-eslint/no-floating-promises": "error",
  "@typescript-eslint/no-import-type-side-effects": "error",
  "@typescript-eslint/no-misused-promises": "error",
  "@typescript-eslint/no-unnecessary-type-assertion": "error",
  "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
  "@typescript-eslint/only-throw-error": "error",
  "@typescript-eslint/prefer-promise-reject-errors": "error",
  "@typescript-eslint/restrict-plus-operands": "error",
  "@typescript-eslint/return-await": ["error", "in-try-catch"],
  "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }]
}

export default [
  { ignores: ["**/node_modules/**", ".orrery/**", "**/dist/**"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.ts", "**/*.mjs"],
    plugins: { "@effect": effect },
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    rules: { ...format, ...meaning }
  },
  {
    files: ["**/*.ts"],
    plugins: { "@typescript-eslint": tseslint.plugin },
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: "./tsconfig.json", tsconfigRootDir: root }
    },
    rules: typed
  }
]
