package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice adds a flag with a fixed set of values, which the shell can complete.
func choice(cmd *cobra.Command, value *string, name, doc string, words ...string) {
	cmd.Flags().Var(&oneOf{value, words}, name, doc+": "+strings.Join(words, ", "))
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// choices adds a flag with any of a fixed set of values, which the shell can complete.
func choices(cmd *cobra.Command, values *[]string, name, doc string, words ...string) {
	cmd.Flags().Var(&someOf{values, words}, name, doc+": "+strings.Join(words, ", "))
	_ = cmd.RegisterFlagCompletionFunc(name, inList(completeWords(words...)))
}

// oneOf is the value of a flag that is one of some words, or none.
type oneOf struct {
	value *string
	words []string
}

func (o *oneOf) String() string {
	if o.value == nil { // pflag asks a zero one
		return ""
	}
	return *o.value
}

func (o *oneOf) Type() string { return "string" }

func (o *oneOf) Set(text string) error {
	if text != "" && !slices.Contains(o.words, text) {
		return expected(o.words)
	}
	*o.value = text
	return nil
}

// someOf is the value of a flag that is some of some words, separated by commas.
type someOf struct {
	values *[]string
	words  []string
}

func (s *someOf) String() string {
	if s.values == nil {
		return ""
	}
	return strings.Join(*s.values, ",")
}

func (s *someOf) Type() string { return "strings" }

func (s *someOf) Set(text string) error {
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(s.words, word) {
			return expected(s.words)
		}
		*s.values = append(*s.values, word)
	}
	return nil
}

func expected(words []string) error {
	last := len(words) - 1
	if last == 0 {
		return fmt.Errorf("expected %s", words[0])
	}
	return fmt.Errorf("expected %s or %s", strings.Join(words[:last], ", "), words[last])
}

// sorting is the flags of a list that can be sorted.
type sorting struct {
	by      string
	reverse bool
}

// bind adds the flags. The words are those of the API, with hyphens.
func (s *sorting) bind(cmd *cobra.Command, doc string, words ...string) {
	choice(cmd, &s.by, "sort", doc, words...)
	cmd.Flags().BoolVar(&s.reverse, "reverse", false, "with --sort, from the end")
}

// param is what the API is asked for; "" is what it does by itself.
func (s *sorting) param() (string, error) {
	by := strings.ReplaceAll(s.by, "-", "_")
	switch {
	case !s.reverse:
		return by, nil
	case by == "":
		return "", errors.New("flag --reverse goes with --sort: say what the list is sorted by")
	}
	return "-" + by, nil
}
