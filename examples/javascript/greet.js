// Greets everybody named in its arguments, or whoever the environment variable NAME holds.
//
// Shows: JavaScript (SpiderMonkey) as a WASI 0.2 component, arguments and environment variables.
// The engine imports more of WASI than this program uses; what is not granted is simply not there.
//
//     examples/build javascript
//     sbx run target/examples/greet.wasm Ada Grace
//     sbx run -e NAME=Alan target/examples/greet.wasm

import { getArguments, getEnvironment } from 'wasi:cli/environment@0.2.4';

export const run = {
  run() {
    const [, ...names] = getArguments();
    const { NAME } = Object.fromEntries(getEnvironment());
    for (const name of names.length ? names : [NAME ?? 'nobody']) {
      console.log(`Hello, ${name}!`);
    }
  },
};
