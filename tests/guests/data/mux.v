// Input for Yosys: one multiplexer.
module top(input a, input b, input select, output y);
  assign y = select ? a : b;
endmodule
