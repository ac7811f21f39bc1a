;; The smallest WASI program: it writes one line to standard output and exits with status 0.
;; Run it with: sbx run examples/hello.wat
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\08\00\00\00\16\00\00\00") ;; one iovec: 22 bytes at address 8
  (data (i32.const 8) "Hello from a sandbox!\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))))
