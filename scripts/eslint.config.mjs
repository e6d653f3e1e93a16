// Lint and format in one tool; `node scripts/run.mjs check --fix` formats. The house style behind the format rules:
// two spaces, double quotes, no semicolons, no trailing commas, 120 columns.
import stylistic from "@stylistic/eslint-plugin"
import { fileURLToPath } from "node:url"
import tseslint from "typescript-eslint"

const root = fileURLToPath(new URL("..", import.meta.url))

const format = {
  "@stylistic/array-bracket-spacing": ["error", "never"],
  "@stylistic/arrow-parens": ["error", "always"],
  "@stylistic/arrow-spacing": "error",
  "@stylistic/block-spacing": "error",
  "@stylistic/comma-dangle": ["error", "never"],
  "@stylistic/comma-spacing": "error",
  "@stylistic/eol-last": "error",
  "@stylistic/function-call-spacing": "error",
  "@stylistic/generator-star-spacing": ["error", { before: false, after: false }],
  "@stylistic/indent": ["error", 2, {
    SwitchCase: 1,
    flatTernaryExpressions: true,
    offsetTernaryExpressions: false,
    ignoredNodes: [
      // SQL and other text in templates is laid out by hand, and so are the continuation lines of long types.
      "TemplateLiteral *", "TSUnionType *", "TSIntersectionType *", "TSTypeParameterInstantiation *",
      "TSConditionalType *", "ConditionalExpression *", "ClassDeclaration[superClass]"
    ]
  }],
  "@stylistic/key-spacing": "error",
  "@stylistic/keyword-spacing": "error",
  "@stylistic/max-len": ["error", {
    code: 140,
    ignoreUrls: true,
    ignoreRegExpLiterals: true,
    ignoreTemplateLiterals: true
  }],
  "@stylistic/member-delimiter-style": ["error", {
    multiline: { delimiter: "none" },
    singleline: { delimiter: "semi", requireLast: false }
  }],
  "@stylistic/no-extra-semi": "error",
  "@stylistic/no-multi-spaces": ["error", { ignoreEOLComments: true }],
  "@stylistic/no-multiple-empty-lines": ["error", { max: 1, maxBOF: 0, maxEOF: 0 }],
  "@stylistic/no-tabs": "error",
  "@stylistic/no-trailing-spaces": "error",
  "@stylistic/no-whitespace-before-property": "error",
  "@stylistic/object-curly-spacing": ["error", "always"],
  "@stylistic/operator-linebreak": ["error", "before", { overrides: { "=": "ignore" } }],
  "@stylistic/padded-blocks": ["error", "never"],
  "@stylistic/quote-props": ["error", "as-needed"],
  "@stylistic/quotes": ["error", "double", { avoidEscape: true, allowTemplateLiterals: "avoidEscape" }],
  "@stylistic/semi": ["error", "never", { beforeStatementContinuationChars: "always" }],
  "@stylistic/semi-spacing": "error",
  "@stylistic/space-before-blocks": "error",
  "@stylistic/space-before-function-paren": ["error", { anonymous: "never", named: "never", asyncArrow: "always" }],
  "@stylistic/space-in-parens": "error",
  "@stylistic/space-infix-ops": "error",
  "@stylistic/spaced-comment": ["error", "always", { markers: ["/"] }],
  "@stylistic/template-curly-spacing": "error",
  "@stylistic/type-annotation-spacing": "error",
  "@stylistic/yield-star-spacing": ["error", "after"]
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
    plugins: { "@stylistic": stylistic },
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
