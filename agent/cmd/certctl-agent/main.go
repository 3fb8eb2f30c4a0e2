// Command certctl-agent keeps the certificates of one host valid: it obtains
// them, puts them into service and renews them, from its own disk and on its
// own clock.
package main

import "os"

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }
