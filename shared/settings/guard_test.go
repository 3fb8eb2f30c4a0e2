package settings

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The parser is not known to panic on any text that gets this far, so the guard is tested by itself.
func TestParserPanicIsAProblem(t *testing.T) {
	problems := guardPanic(func() []yamlProblem { panic("index out of range") })
	assert.Equal(t, []yamlProblem{{err: errNotYAML}}, problems)
	assert.Equal(t, yamlProblem{err: errNotYAML}, syntaxProblem(errors.New("an error without a place")))
}
