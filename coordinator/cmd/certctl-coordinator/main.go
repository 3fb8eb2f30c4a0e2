// Command certctl-coordinator is the centre of a fleet: it remembers what the
// agents report, answers for it, and issues from its built-in CA.
package main

import "os"

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }
