package connector

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
)

// A StateRow is what one word that an authority has for the state of an order means.
type StateRow struct {
	Word  string
	State State
	Mend  string // what a person has to do, for NeedsPerson
	// Source is where the word was read, for those who keep the table.
	Source string
}

// States is what the words of an authority mean. Upper and lower case, and blanks,
// underscores and hyphens between the parts of a word, are the same.
type States struct{ rows map[string]StateRow }

// NewStates makes a table. No word may be there twice: it panics, as the rows are
// written in a program.
func NewStates(rows ...StateRow) States {
	table := States{rows: map[string]StateRow{}}
	for _, row := range rows {
		word := normalWord(row.Word)
		if _, twice := table.rows[word]; twice {
			panic(fmt.Sprintf("connector: the state %q is there twice", row.Word))
		}
		table.rows[word] = row
	}
	return table
}

// With is s with other meanings of some words, or new words: an operator knows what
// an account says. A meaning that is no State is an error.
func (s States) With(meanings map[string]State) (States, error) {
	rows := maps.Clone(s.rows)
	for word, state := range meanings {
		switch state {
		case Pending, NeedsPerson, Issued, Ended, Rejected, Cancelled, Revoked:
		default:
			return States{}, fmt.Errorf("the state %q cannot mean %q; use pending, needs_person, issued, ended, rejected, cancelled or revoked", word, state)
		}
		row := StateRow{Word: word, State: state, Source: "settings"}
		if state == NeedsPerson {
			row.Mend = "see the order at the authority: somebody has to act there"
		}
		rows[normalWord(word)] = row
	}
	return States{rows: rows}, nil
}

// Status is the Status that word stands for, with State, Raw and Mend: Unrecognised
// for a word that is not in the table.
func (s States) Status(word string) Status {
	row, known := s.rows[normalWord(word)]
	if !known {
		return Status{
			State: Unrecognised, Raw: Raw(word),
			Mend: "see the order at the authority, and tell in the issuer's settings what this state means",
		}
	}
	return Status{State: row.State, Raw: Raw(word), Mend: row.Mend}
}

func normalWord(word string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '_', '-':
			return -1
		}
		return r
	}, word))
}

// A CodeRow is what one of an authority's codes for failures means.
type CodeRow struct {
	Code   string
	Class  Class // "" is what the HTTP status says
	Mend   string
	Source string
}

// Codes is what the codes of an authority mean, without regard to case.
type Codes struct{ rows map[string]CodeRow }

// NewCodes makes a table. No code may be there twice: it panics, as the rows are
// written in a program.
func NewCodes(rows ...CodeRow) Codes {
	table := Codes{rows: map[string]CodeRow{}}
	for _, row := range rows {
		code := strings.ToLower(row.Code)
		if _, twice := table.rows[code]; twice {
			panic(fmt.Sprintf("connector: the code %q is there twice", row.Code))
		}
		table.rows[code] = row
	}
	return table
}

// Of finds the row of a code: that of the whole, else that of what stands before
// its last "|", which some authorities put more words after.
func (c Codes) Of(code string) (CodeRow, bool) {
	code = strings.ToLower(code)
	for {
		if row, ok := c.rows[code]; ok {
			return row, true
		}
		at := strings.LastIndexByte(code, '|')
		if at < 0 {
			return CodeRow{}, false
		}
		code = code[:at]
	}
}

// Error is the Error of a code with what the authority says of it. Class and Mend
// are "" for a code that is not in the table.
func (c Codes) Error(code, detail string) *Error {
	row, _ := c.Of(code)
	return &Error{Class: row.Class, Mend: row.Mend, Code: code, Detail: detail}
}

// A MarkRow is what a failure means that has no code and is known by words in its
// text.
type MarkRow struct {
	Status int    // 0 is any that refuses: 400 to 499, but 408 and 429
	Word   string // in lower case; "" is any text
	Class  Class  // "" is what the HTTP status says
	Mend   string
	Source string
}

// Marks are rows of which the first that fits counts.
type Marks []MarkRow

// Error is the Error of a failure with what the authority says of it. Class and Mend
// are "" if no row fits.
func (m Marks) Error(status int, text string) *Error {
	lower := strings.ToLower(text)
	refuses := status/100 == 4 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
	for _, row := range m {
		if (row.Status == status || row.Status == 0 && refuses) && strings.Contains(lower, row.Word) {
			return &Error{Class: row.Class, Mend: row.Mend, Detail: text}
		}
	}
	return &Error{Detail: text}
}
