package settings

import (
	"bytes"
	"fmt"
	"strings"
)

// EnvExample writes an environment file for systemd in which every variable of the struct is a comment and shows its
// default, or its example if it has none. Removing the first # of every line gives a file that sets what the defaults
// set: prose begins with ##. It shows the defaults of Linux on every operating system.
func EnvExample(ptr any, intro string) ([]byte, error) {
	schema, err := schemaOf(ptr)
	if err != nil {
		return nil, err
	}
	w := yamlWriter{}
	for line := range strings.Lines(strings.TrimSpace(intro) + "\n") {
		w.out.WriteString(strings.TrimRight("## "+line, " \n") + "\n")
	}
	schema.single(func(f *field) {
		if f.env == "" {
			return
		}
		w.out.WriteByte('\n')
		w.prose(0, f.doc)
		w.prose(0, f.envFacts())
		if f.isSecret() {
			w.setting(0, f.env+"=")
			w.setting(0, f.fileEnv()+"=")
			return
		}
		w.setting(0, f.env+"="+quoteEnv(f.envText()))
	})
	return w.out.Bytes(), nil
}

// envText is the default, else the example; a variable may well be empty.
func (f *field) envText() string {
	if text, ok := f.defaultFor("linux"); ok {
		return text
	}
	return f.example
}

// envFacts says in one line what the reference page says in columns.
func (f *field) envFacts() string {
	s := f.describe()
	facts := strings.ToUpper(s.Type[:1]) + s.Type[1:]
	if f.kind == listField {
		facts += ", parted by commas"
	}
	if len(s.OneOf) > 0 {
		facts += ": " + orList(s.OneOf)
	}
	if s.Range != "" {
		facts += ", " + s.Range
	}
	if s.Secret {
		facts += fmt.Sprintf(". Either it or, in %s, the path of a file that holds it", s.EnvFile)
	}
	if !s.HasDefault && s.Example != "" {
		facts += ". Shown: an example"
	}
	return facts + ". In the configuration file: " + s.Path + "."
}

// quoteEnv writes a value as systemd's EnvironmentFile= reads it back, also where it holds what has a meaning there.
func quoteEnv(text string) string {
	if !strings.ContainsAny(text, " \t\"'\\$`#;") {
		return text
	}
	var quoted bytes.Buffer
	quoted.WriteByte('"')
	for _, r := range text {
		if strings.ContainsRune("\"\\$`", r) {
			quoted.WriteByte('\\')
		}
		quoted.WriteRune(r)
	}
	quoted.WriteByte('"')
	return quoted.String()
}
