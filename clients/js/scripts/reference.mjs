/**
 * Writes API.md from the types: every name that the package exports, with its declaration and what its comment says.
 * `--check` only compares, and fails where the file is not what the types say. Needs the built types.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import ts from 'typescript';

const ROOT = new URL('..', import.meta.url).pathname;
const ENTRIES = [
  ['roomcast', 'dist/index.d.ts'],
  ['roomcast/react', 'dist/react/index.d.ts'],
  ['roomcast/push', 'dist/push.d.ts'],
];
const FILE = `${ROOT}API.md`;

const program = ts.createProgram(ENTRIES.map(([, file]) => ROOT + file), { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, target: ts.ScriptTarget.ES2022, strict: true, skipLibCheck: true, types: [] });
const checker = program.getTypeChecker();
const printer = ts.createPrinter({ removeComments: true });

/** What the comment of a declaration says, on one line a paragraph. */
function said(symbol) {
  const text = ts.displayPartsToString(symbol.getDocumentationComment(checker));
  return text.replaceAll(/\{@link (\w+\.)?(\w+)\}/g, '`$2`').replaceAll(/\n(?!\n)/g, ' ').trim();
}

/** A declaration as code, without comments, private members and bodies. */
function code(declaration) {
  const source = declaration.getSourceFile();
  const node = ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration;
  const kept = ts.isClassDeclaration(node) ? ts.factory.updateClassDeclaration(node, node.modifiers, node.name, node.typeParameters, node.heritageClauses, node.members.filter((member) => !(member.name !== undefined && ts.isPrivateIdentifier(member.name)))) : node;
  return printer
    .printNode(ts.EmitHint.Unspecified, kept, source)
    .replaceAll(/^export (declare )?/gm, '')
    .replaceAll(/ {4}/g, '  ');
}

/** The documented members of an interface or a class, as a list. */
function members(symbol) {
  const lines = [];
  for (const member of symbol.members?.values() ?? []) {
    const name = member.getName();
    const words = said(member);
    if (words === '' || name.startsWith('__')) continue;
    lines.push(`- \`${name}\`: ${words}`);
  }
  return lines;
}

const parts = ['# API', '', 'Written from the types by `npm run reference`; change those. How to use it all: [README.md](README.md).', ''];
for (const [name, file] of ENTRIES) {
  const source = program.getSourceFile(ROOT + file);
  if (source === undefined) throw new Error(`${file} is not there: npm run build`);
  parts.push(`## ${name}`, '');
  const exported = checker
    .getExportsOfModule(checker.getSymbolAtLocation(source))
    .map((symbol) => [symbol.getName(), symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol])
    .sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [exportedAs, symbol] of exported) {
    const words = said(symbol);
    if (words === '') throw new Error(`${exportedAs} says nothing about itself`);
    parts.push(`### ${exportedAs}`, '', words, '', '```ts', [...new Set((symbol.declarations ?? []).map(code))].join('\n'), '```', '');
    const list = members(symbol);
    if (list.length > 0) parts.push(...list, '');
  }
}
const text = `${parts.join('\n').trimEnd()}\n`;
if (process.argv.includes('--check')) {
  if (readFileSync(FILE, 'utf8') !== text) {
    console.error('clients/js/API.md is not what the types say: npm run reference -w roomcast');
    process.exit(1);
  }
} else {
  writeFileSync(FILE, text);
}
