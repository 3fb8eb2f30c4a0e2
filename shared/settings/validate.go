package settings

import (
	"errors"
	"fmt"
	"reflect"
)

// Validator is implemented by a settings struct, or a section or element inside it, that has rules beyond those of its
// tags, such as relations between settings. It calls report for each broken rule, with the path of the setting relative
// to itself ("names[0]", "" for itself) and an error that says what was expected. It must not change its receiver and
// must do no I/O.
//
// Load calls it only if every value of the section was read, so that it sees no half-read values. What the Validators of
// inner sections report does not keep it from being called: all mistakes are told at once. Of two that report the same
// path, the inner one is heard.
type Validator interface {
	Validate(report func(path string, err error))
}

// validate calls the Validators of a section and of all that it holds, but for those of sections that have one of the
// unread problems in them.
func (l *loader) validate(section *field, v reflect.Value, path string, unread *collector) {
	for _, f := range section.children {
		if !f.isOrHoldsSections() {
			continue
		}
		fv, fieldPath := v.FieldByIndex(f.index), joinPath(path, f.key)
		switch {
		case f.kind == sectionField && f.optional:
			if !fv.IsNil() {
				l.validate(f, fv.Elem(), fieldPath, unread)
			}
		case f.kind == sectionField:
			l.validate(f, fv, fieldPath, unread)
		case f.elem != nil && f.elem.kind == sectionField:
			eachElement(f, fv, fieldPath, func(element reflect.Value, path string) { l.validate(f.elem, element, path, unread) })
		}
	}
	validator, ok := v.Addr().Interface().(Validator)
	if !ok || unread.within(path) {
		return
	}
	inner := l.problems
	validator.Validate(func(relative string, err error) {
		full := below(path, relative)
		if inner.at(full) {
			return
		}
		l.problem(full, l.report.closest(full), err)
	})
}

// checkRequired reports the settings that some source must give and none gave, but not for something else that stands
// where a section should.
func (l *loader) checkRequired(section *field, v reflect.Value, path string) {
	if path != "" && l.problems.at(path) {
		return
	}
	for _, f := range section.children {
		if !f.required() && !f.isOrHoldsSections() {
			continue
		}
		fv, fieldPath := v.FieldByIndex(f.index), joinPath(path, f.key)
		if _, given := l.report.origins[fieldPath]; f.required() && !given {
			l.problem(fieldPath, l.report.closest(fieldPath), f.missing(fieldPath))
			continue
		}
		switch {
		case f.kind == sectionField && f.optional:
			if !fv.IsNil() {
				l.checkRequired(f, fv.Elem(), fieldPath)
			}
		case f.kind == sectionField:
			l.checkRequired(f, fv, fieldPath)
		case f.elem != nil && f.elem.kind == sectionField:
			eachElement(f, fv, fieldPath, func(element reflect.Value, path string) { l.checkRequired(f.elem, element, path) })
		}
	}
}

func (f *field) missing(path string) error {
	if f.env == "" {
		return fmt.Errorf("missing; expected %s", f.expected())
	}
	return fmt.Errorf("missing; expected %s; set %s in the configuration file or %s in the environment", f.expected(), path, f.env)
}

var errBothForms = errors.New("both the secret and its file are given; expected only one of them")
