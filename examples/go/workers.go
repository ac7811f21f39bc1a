// Counts the words of standard input with a few goroutines and prints the most frequent ones.
//
// Shows: a Go program with its scheduler and garbage collector inside one sandbox, and -i, without
// which standard input is empty.
//
//	examples/build go
//	sbx run -i -e TOP=3 target/examples/workers.wasm < examples/data/words.txt
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

func count(lines <-chan string, counts map[string]int) {
	notLetter := func(r rune) bool { return !unicode.IsLetter(r) }
	for line := range lines {
		for _, word := range strings.FieldsFunc(strings.ToLower(line), notLetter) {
			counts[word]++
		}
	}
}

func main() {
	top, err := strconv.Atoi(os.Getenv("TOP"))
	if err != nil {
		top = 10
	}
	lines := make(chan string)
	counts := make([]map[string]int, 4)
	var workers sync.WaitGroup
	for i := range counts {
		counts[i] = map[string]int{}
		workers.Go(func() { count(lines, counts[i]) })
	}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		lines <- input.Text()
	}
	close(lines)
	workers.Wait()
	if err := input.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "workers:", err)
		os.Exit(1)
	}

	total := map[string]int{}
	for _, part := range counts {
		for word, n := range part {
			total[word] += n
		}
	}
	words := make([]string, 0, len(total))
	for word := range total {
		words = append(words, word)
	}
	sort.Slice(words, func(i, j int) bool {
		a, b := words[i], words[j]
		if total[a] != total[b] {
			return total[a] > total[b]
		}
		return a < b
	})
	for _, word := range words[:min(top, len(words))] {
		fmt.Println(total[word], word)
	}
}
