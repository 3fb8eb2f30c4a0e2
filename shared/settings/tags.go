package settings

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// envPrefix begins every environment variable of the project.
const envPrefix = "CERTCTL_"

var envPattern = regexp.MustCompile(`^` + envPrefix + `[A-Z0-9]+(_[A-Z0-9]+)*$`)

// tags is what a struct tag says about a setting, besides its key.
type tags struct {
	doc, env, example, typeText string
	unit                        string // of a duration: what a number without one is taken to mean
	def, defWindows             string
	hasDefault, hasDefWindows   bool
	minText, maxText            string
	oneof                       []string
	requiredText                string
	bounds                      bounds // of a text's, list's or map's length; scalars check their own values
}

func readTags(tag reflect.StructTag) tags {
	t := tags{
		doc: tag.Get("doc"), env: tag.Get("env"), example: tag.Get("example"), typeText: tag.Get("type"),
		minText: tag.Get("min"), maxText: tag.Get("max"), requiredText: tag.Get("required"), unit: tag.Get("unit"),
	}
	t.def, t.hasDefault = tag.Lookup("default")
	t.defWindows, t.hasDefWindows = tag.Lookup("default_windows")
	if list := tag.Get("oneof"); list != "" {
		t.oneof = strings.Split(list, "|")
	}
	return t
}

// required reports whether some source must give the setting.
func (t tags) required() bool { return t.requiredText == "true" }

// defaultFor returns the text of the default on an operating system, and whether there is one.
func (t tags) defaultFor(goos string) (string, bool) {
	if goos == "windows" && t.hasDefWindows {
		return t.defWindows, true
	}
	return t.def, t.hasDefault
}

// check finds mistakes in the tags of a field whose shape is known.
func (f *field) check() error {
	var errs []error
	refuse := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(f.requiredText != "" && f.requiredText != "true", `required tag must be "true"`)
	refuse(f.env != "" && !envPattern.MatchString(f.env), "env tag %q does not look like %sNAME", f.env, envPrefix)
	refuse(f.env != "" && f.repeated, "is inside a list or map, so it cannot have an environment variable")
	refuse(f.hasDefWindows && !f.hasDefault, "default_windows needs default too")
	refuse(f.required() && f.hasDefault, "cannot be required and have a default")
	_, notUnit := ParseDuration("1" + f.unit)
	refuse(f.unit != "" && (f.typ != durationType || notUnit != nil), "unit tag %q is none of a duration", f.unit)
	if f.kind == sectionField {
		refuse(f.env+f.example+f.minText+f.maxText+f.requiredText+f.typeText != "" || f.hasDefault || f.oneof != nil,
			"a section takes only yaml and doc tags")
		return errors.Join(errs...)
	}
	if f.kind == scalarField {
		errs = append(errs, f.scalar.err)
		refuse(f.isSecret() && f.hasDefault, "a secret cannot have a default")
	} else {
		var err error
		f.bounds, err = lengthBounds(f.minText, f.maxText)
		errs = append(errs, err, f.elem.elementError())
		refuse(f.elem.kind == sectionField && (f.env != "" || f.hasDefault), "has sections as elements, so only YAML can give it")
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return f.checkTexts()
}

func (f *field) elementError() error {
	if f.kind == scalarField {
		return f.scalar.err
	}
	return nil
}

// checkTexts proves that default and example can be used, so that the reference page never shows a value that is refused.
func (f *field) checkTexts() error {
	texts := map[string]string{"default": f.def, "default_windows": f.defWindows, "example": f.example}
	present := map[string]bool{"default": f.hasDefault, "default_windows": f.hasDefWindows, "example": f.example != ""}
	if f.elem != nil && f.elem.kind == sectionField {
		return nil // the example of named sections is a name
	}
	var errs []error
	for _, name := range []string{"default", "default_windows", "example"} {
		if !present[name] {
			continue
		}
		if err := f.parse(texts[name], reflect.New(f.typ).Elem()); err != nil {
			errs = append(errs, fmt.Errorf("%s tag: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := f.parse(f.exampleText(), reflect.New(f.typ).Elem()); err != nil {
		return fmt.Errorf("needs a default or an example to show: %w", err)
	}
	return nil
}

// bounds is an inclusive range of a length; a missing bound is nil.
type bounds struct{ min, max *int }

func lengthBounds(minText, maxText string) (bounds, error) {
	var b bounds
	for _, side := range []struct {
		name, text string
		to         **int
	}{{"min", minText, &b.min}, {"max", maxText, &b.max}} {
		if side.text == "" {
			continue
		}
		n, err := strconv.Atoi(side.text)
		if err != nil || n < 0 {
			return bounds{}, fmt.Errorf("%s tag %q is not a length", side.name, side.text)
		}
		*side.to = &n
	}
	if b.min != nil && b.max != nil && *b.min > *b.max {
		return bounds{}, errors.New("min tag is above max tag")
	}
	return b, nil
}

// allow reports whether a length is within the bounds.
func (b bounds) allow(length int) bool {
	return (b.min == nil || length >= *b.min) && (b.max == nil || length <= *b.max)
}

// lengthText says " of 1 to 10 elements", or nothing without bounds. The unit is given in the singular.
func (b bounds) lengthText(unit string) string {
	plural := func(n int) string {
		if n == 1 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case b.min != nil && b.max != nil:
		return fmt.Sprintf(" of %d to %s", *b.min, plural(*b.max))
	case b.min != nil:
		return " of at least " + plural(*b.min)
	case b.max != nil:
		return " of at most " + plural(*b.max)
	default:
		return ""
	}
}

// hostOS is the operating system whose defaults apply.
const hostOS = runtime.GOOS
