package api

import (
	"net/http"
	"strings"
)

// conditions are the preconditions of a request that ask for entity tags (RFC 9110,
// sections 13.1.1 and 13.1.2). Those that ask for a date are ignored, as section
// 13.1.3 wants of a resource that has none.
type conditions struct {
	match, noneMatch tagList
}

// conditionsOf reads the preconditions of a request, all field lines of each.
func conditionsOf(header http.Header) conditions {
	return conditions{match: parseTags(header["If-Match"]), noneMatch: parseTags(header["If-None-Match"])}
}

// outcome is what the preconditions of a request come to, in the order of section
// 13.2.2: the status to answer with.
func (c conditions) outcome(tag string) int {
	switch {
	case c.match.given && !c.match.any && !c.match.strong(tag):
		return http.StatusPreconditionFailed
	case c.noneMatch.given && (c.noneMatch.any || c.noneMatch.weak(tag)):
		return http.StatusNotModified
	}
	return http.StatusOK
}

// tagList is the value of such a field.
type tagList struct {
	given bool // there is such a field
	any   bool // it is "*"
	tags  []entityTag
}

// entityTag is one of RFC 9110, section 8.8.3, with its quotes.
type entityTag struct {
	opaque string
	isWeak bool
}

// weak and strong compare as section 8.8.3.2 says. A tag of ours is never weak.
func (l tagList) weak(tag string) bool {
	for _, t := range l.tags {
		if t.opaque == tag {
			return true
		}
	}
	return false
}

func (l tagList) strong(tag string) bool {
	for _, t := range l.tags {
		if t.opaque == tag && !t.isWeak {
			return true
		}
	}
	return false
}

// parseTags reads the lines of a field, which are one list (section 5.3). What is no
// entity tag ends it: the rest matches nothing, which sends a whole answer to a read
// and refuses a request that insists on a state.
func parseTags(lines []string) tagList {
	if len(lines) == 0 {
		return tagList{}
	}
	list := tagList{given: true}
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		list.any = true
		return list
	}
	for _, line := range lines {
		for line = strings.TrimLeft(line, " \t,"); line != ""; line = strings.TrimLeft(line, " \t,") {
			tag, rest, ok := cutTag(line)
			if !ok {
				return list
			}
			list.tags = append(list.tags, tag)
			line = rest
		}
	}
	return list
}

// cutTag reads the entity tag at the beginning of a list. After it comes a comma or
// the end.
func cutTag(list string) (tag entityTag, rest string, ok bool) {
	list, tag.isWeak = strings.CutPrefix(list, "W/")
	if list == "" || list[0] != '"' {
		return tag, "", false
	}
	end := 1
	for end < len(list) && list[end] != '"' {
		// etagc: all but controls, spaces and quotes. Commas are allowed.
		if list[end] <= ' ' || list[end] == 0x7f {
			return tag, "", false
		}
		end++
	}
	if end == len(list) {
		return tag, "", false
	}
	tag.opaque = list[:end+1]
	rest = strings.TrimLeft(list[end+1:], " \t")
	return tag, rest, rest == "" || rest[0] == ','
}
