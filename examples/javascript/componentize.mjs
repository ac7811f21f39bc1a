// Turns a JavaScript module into a component: node componentize.mjs SOURCE WIT OUTPUT
import { componentize } from '@bytecodealliance/componentize-js';
import { readFile, writeFile } from 'node:fs/promises';

const [source, witPath, output] = process.argv.slice(2);
const { component } = await componentize(await readFile(source, 'utf8'), {
  witPath,
  worldName: 'command',
  // A command serves no HTTP; leaving the two out keeps wasi:http from being imported.
  disableFeatures: ['http', 'fetch-event'],
});
await writeFile(output, component);
