// Package settings turns one typed struct into the whole configuration of a binary: its YAML file, its environment
// variables, its reference page, its example file and the explanation of where each value came from.
//
// # Declaring settings
//
// A setting is an exported field with a yaml tag. These tags are read:
//
//	yaml             the key, in snake_case; "-" leaves the field out, ",inline" lifts an embedded struct's fields
//	doc              what the setting does, in plain words; required
//	env              the environment variable, CERTCTL_*; not allowed inside lists and maps
//	default          the value without any source, in the text form of the environment
//	default_windows  the same on Windows, where it differs
//	min, max         bounds, both inclusive: of a number or duration, else of the length of a text, list or map
//	oneof            the allowed texts, separated by "|"
//	required         "true": some source must give the setting
//	example          a value for the example file when there is no default
//	type             words for the reference page, for a type of one's own ("key algorithm")
//
// A field is a string, bool, integer, float, [time.Duration], [Secret] or any type that implements
// encoding.TextUnmarshaler and encoding.TextMarshaler; a list or a string-keyed map of these; a nested struct (a
// section), a pointer to a struct (an optional section, nil until some source mentions it), or a list or map of structs.
// Defaults apply inside list and map elements too. A struct that breaks these rules is a programming error, which every
// function here reports as an error that names the Go field.
//
// # Sources
//
// [Load] applies defaults, then the YAML file, then the environment, then flags; a later source replaces the value of an
// earlier one as a whole, lists and maps included. Nothing falls back silently: a value that cannot be used is an error
// even if a later source would replace it. A section, list or map key with nothing after it counts as absent.
//
// Durations are written as in Go, and days are understood as 24 hours: 90s, 12h, 30d, 1d12h. In the environment and in
// flags, lists are separated by commas and maps are written key=value,key=value. Each Secret setting NAME may instead be
// read from a file: NAME_FILE in the environment, <key>_file in the YAML file (relative to the directory of that file).
// One source may not give both. A secret's file that others can read is refused; one of root's may be readable by its
// group.
//
// # YAML
//
// The file is one YAML 1.2 document in UTF-8 of at most 12 MiB, 1,500,000 words and marks, 10,000 keys in one section and 32
// levels. Unknown and duplicate keys, wrong types, anchors, aliases, merge keys and tags are errors: a configuration file is
// read by people, so each value stands where it is used.
package settings
