package effects

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/certctl/certctl/shared/settings"
)

// inYAML is a value of the environment as it stands in a file.
func inYAML(s settings.Setting, value string) string {
	switch {
	case strings.HasPrefix(s.Type, "list of"):
		words := strings.Split(value, ",")
		for i, word := range words {
			words[i] = strconv.Quote(word)
		}
		return "[" + strings.Join(words, ", ") + "]"
	case s.Type == "whole number", s.Type == "number", s.Type == "true or false":
		return value
	}
	return strconv.Quote(value)
}

// nested writes settings, by their paths, as YAML.
func nested(values map[string]string) string {
	var text strings.Builder
	var open []string
	for _, path := range slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return slices.Compare(strings.Split(a, "."), strings.Split(b, "."))
	}) {
		steps := strings.Split(path, ".")
		same := 0
		for same < len(open) && same < len(steps)-1 && open[same] == steps[same] {
			same++
		}
		for depth := same; depth < len(steps)-1; depth++ {
			fmt.Fprintf(&text, "%s%s:\n", strings.Repeat("  ", depth), steps[depth])
		}
		open = steps[:len(steps)-1]
		fmt.Fprintf(&text, "%s%s: %s\n", strings.Repeat("  ", len(steps)-1), steps[len(steps)-1], values[path])
	}
	return text.String()
}

// newOf is an empty struct of the kind that ptr points to.
func newOf(ptr any) any { return reflect.New(reflect.TypeOf(ptr).Elem()).Interface() }
