package settings_test

import (
	"testing"
	"time"

	"github.com/certctl/certctl/shared/settings"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type recursive struct {
	Child *recursive `yaml:"child" doc:"d"`
}

// readOnly has a text form that cannot be written back.
type readOnly struct{}

func (*readOnly) UnmarshalText([]byte) error { return nil }

func TestStructMistakes(t *testing.T) {
	tests := map[string]struct {
		ptr  any
		want string
	}{
		"no yaml tag": {&struct{ A string }{}, `.A: yaml tag "" is not a key in snake_case`},
		"camel case": {&struct {
			A string `yaml:"aB" doc:"d"`
		}{}, `.A: yaml tag "aB" is not a key in snake_case`},
		"unexported": {&struct {
			a string `yaml:"a" doc:"d"`
		}{}, `.a: has a yaml tag but is not exported`},
		"no doc": {&struct {
			A string `yaml:"a"`
		}{}, `.A: needs a doc tag`},
		"empty":     {&struct{}{}, `has no settings`},
		"recursion": {&recursive{}, `contains itself`},
		"key twice": {&struct {
			A string `yaml:"a" doc:"d"`
			B string `yaml:"a" doc:"d"`
		}{}, `key "a" stands for two settings`},
		"key of a secret file": {&struct {
			A settings.Secret `yaml:"a" doc:"d"`
			B string          `yaml:"a_file" doc:"d"`
		}{}, `key "a_file" stands for two settings`},
		"variable twice": {&struct {
			A string `yaml:"a" doc:"d" env:"CERTCTL_A"`
			B string `yaml:"b" doc:"d" env:"CERTCTL_A"`
		}{}, `.B: environment variable CERTCTL_A already stands for a`},
		"variable of a secret file": {&struct {
			A settings.Secret `yaml:"a" doc:"d" env:"CERTCTL_A"`
			B string          `yaml:"b" doc:"d" env:"CERTCTL_A_FILE"`
		}{}, `.B: environment variable CERTCTL_A_FILE already stands for a`},
		"unit of a number": {&struct {
			A int `yaml:"a" doc:"d" default:"1" unit:"d"`
		}{}, `unit tag "d" is none of a duration`},
		"no unit": {&struct {
			A time.Duration `yaml:"a" doc:"d" default:"1s" unit:"w"`
		}{}, `unit tag "w" is none of a duration`},
		"foreign variable": {&struct {
			A string `yaml:"a" doc:"d" env:"OTHER_A"`
		}{}, `env tag "OTHER_A" does not look like CERTCTL_NAME`},
		"variable in list": {&struct {
			L []struct {
				A string `yaml:"a" doc:"d" env:"CERTCTL_A"`
			} `yaml:"l" doc:"d"`
		}{}, `is inside a list or map, so it cannot have an environment variable`},
		"variable of sections": {&struct {
			L []struct {
				A string `yaml:"a" doc:"d"`
			} `yaml:"l" doc:"d" env:"CERTCTL_L"`
		}{}, `has sections as elements, so only YAML can give it`},
		"tags of a section": {&struct {
			S struct {
				A string `yaml:"a" doc:"d"`
			} `yaml:"s" doc:"d" required:"true"`
		}{}, `a section takes only yaml and doc tags`},
		"bad default": {&struct {
			A int `yaml:"a" doc:"d" default:"x"`
		}{}, `default tag: cannot use "x"; expected a whole number`},
		"default out of range": {&struct {
			A int `yaml:"a" doc:"d" default:"5" max:"4"`
		}{}, `default tag: cannot use "5"; expected a whole number of at most 4`},
		"bad windows default": {&struct {
			A bool `yaml:"a" doc:"d" default:"true" default_windows:"x"`
		}{}, `default_windows tag: cannot use "x"; expected true or false`},
		"windows default alone": {&struct {
			A string `yaml:"a" doc:"d" default_windows:"x"`
		}{}, `default_windows needs default too`},
		"bad example": {&struct {
			A time.Duration `yaml:"a" doc:"d" example:"5"`
		}{}, `example tag: cannot use "5"`},
		"bad min": {&struct {
			A time.Duration `yaml:"a" doc:"d" min:"5"`
		}{}, `min tag "5" is not a duration such as 90s, 12h or 30d`},
		"min above max": {&struct {
			A int `yaml:"a" doc:"d" min:"5" max:"4"`
		}{}, `min tag is above max tag`},
		"length min above max": {&struct {
			A []string `yaml:"a" doc:"d" min:"5" max:"4"`
		}{}, `min tag is above max tag`},
		"bad length": {&struct {
			A string `yaml:"a" doc:"d" max:"-1"`
		}{}, `max tag "-1" is not a length`},
		"range of bool": {&struct {
			A bool `yaml:"a" doc:"d" max:"1"`
		}{}, `min and max make no sense for true or false`},
		"enum of numbers": {&struct {
			A int `yaml:"a" doc:"d" oneof:"1|2"`
		}{}, `oneof is for texts`},
		"bad required": {&struct {
			A string `yaml:"a" doc:"d" required:"yes"`
		}{}, `required tag must be "true"`},
		"required default": {&struct {
			A string `yaml:"a" doc:"d" required:"true" default:"x"`
		}{}, `cannot be required and have a default`},
		"secret default": {&struct {
			A settings.Secret `yaml:"a" doc:"d" default:"x"`
		}{}, `a secret cannot have a default`},
		"nothing to show": {&struct {
			A []string `yaml:"a" doc:"d" min:"1"`
		}{}, `needs a default or an example to show: there are 0`},
		"channel": {&struct {
			A chan int `yaml:"a" doc:"d"`
		}{}, `type chan int cannot be a setting`},
		"pointer to scalar": {&struct {
			A *int `yaml:"a" doc:"d"`
		}{}, `a pointer may only point to a section`},
		"list of lists": {&struct {
			A [][]string `yaml:"a" doc:"d"`
		}{}, `elements of type []string are neither scalars nor sections`},
		"number keys": {&struct {
			A map[int]string `yaml:"a" doc:"d"`
		}{}, `a map needs text keys`},
		"read only": {&struct {
			A readOnly `yaml:"a" doc:"d"`
		}{}, `reads a text but cannot write it: it needs MarshalText`},
		"not a struct":  {new(int), `need a pointer to a struct, got *int`},
		"not a pointer": {daemon{}, `need a pointer to a struct, got settings_test.daemon`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := settings.Describe(test.ptr)
			require.ErrorContains(t, err, test.want)
			_, loadErr := settings.Load(test.ptr, settings.Options{})
			assert.Equal(t, err, loadErr, "every function says the same")
		})
	}
	_, err := settings.Sections(new(int), "", "")
	require.Error(t, err)
	_, err = settings.Example(new(int))
	require.Error(t, err)
	_, err = settings.Effective(new(int))
	require.Error(t, err)
	_, err = settings.EnvNames(new(int))
	require.Error(t, err)
}
