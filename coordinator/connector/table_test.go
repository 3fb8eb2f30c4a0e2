package connector_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

func TestWordsOfStates(t *testing.T) {
	table := connector.NewStates(
		connector.StateRow{Word: "Awaiting Approval", State: connector.NeedsPerson, Mend: "approve it"},
		connector.StateRow{Word: "issued", State: connector.Issued},
	)
	for _, word := range []string{"Awaiting Approval", "awaiting_approval", "AWAITING-APPROVAL", "AwaitingApproval"} {
		assert.Equal(t, connector.Status{State: connector.NeedsPerson, Raw: word, Mend: "approve it"}, table.Status(word))
	}
	status := table.Status("odd\nword")
	assert.Equal(t, connector.Unrecognised, status.State)
	assert.Equal(t, "odd word", status.Raw)
	assert.NotEmpty(t, status.Mend)
	more, err := table.With(map[string]connector.State{"oddword": connector.Pending, "ISSUED": connector.NeedsPerson})
	require.NoError(t, err)
	assert.Equal(t, connector.Pending, more.Status("Odd Word").State)
	assert.Equal(t, connector.NeedsPerson, more.Status("issued").State)
	assert.NotEmpty(t, more.Status("issued").Mend)
	assert.Equal(t, connector.Issued, table.Status("issued").State, "the table itself is as it was")
	for _, none := range []connector.State{"", "done", connector.Unrecognised} {
		_, err = table.With(map[string]connector.State{"x": none})
		assert.ErrorContains(t, err, `"x"`)
	}
	assert.Panics(t, func() { connector.NewStates(connector.StateRow{Word: "a b"}, connector.StateRow{Word: "A_B"}) })
}

func TestCodesOfFailures(t *testing.T) {
	table := connector.NewCodes(
		connector.CodeRow{Code: "not_found", Class: connector.ClassNotFound},
		connector.CodeRow{Code: "not_found|product", Class: connector.ClassConfig, Mend: "set it"},
	)
	for code, class := range map[string]connector.Class{
		"not_found": connector.ClassNotFound, "NOT_FOUND": connector.ClassNotFound, "not_found|order": connector.ClassNotFound, "not_found|a|b": connector.ClassNotFound,
		"not_found|product": connector.ClassConfig, "Not_Found|Product|x": connector.ClassConfig, "other": "", "": "",
	} {
		e := table.Error(code, "words")
		assert.Equal(t, class, e.Class, code)
		assert.Equal(t, code, e.Code)
		assert.Equal(t, "words", e.Detail)
	}
	assert.Equal(t, "set it", table.Error("not_found|product", "").Mend)
	assert.Panics(t, func() { connector.NewCodes(connector.CodeRow{Code: "a"}, connector.CodeRow{Code: "A"}) })
}

func TestFailuresThatAreKnownByWords(t *testing.T) {
	table := connector.Marks{
		{Status: http.StatusServiceUnavailable, Word: "asleep", Class: connector.ClassBusy, Mend: "wake it"},
		{Word: "quota", Class: connector.ClassNeedsPerson},
		{Status: http.StatusNotFound, Word: "route", Class: connector.ClassConfig},
		{Status: http.StatusBadRequest, Class: connector.ClassRefused},
	}
	for _, c := range []struct {
		status int
		text   string
		class  connector.Class
	}{
		{503, "it is Asleep", connector.ClassBusy}, {500, "it is asleep", ""}, {400, "no QUOTA", connector.ClassNeedsPerson}, {404, "quota of the route", connector.ClassNeedsPerson},
		{404, "no route", connector.ClassConfig}, {404, "no such thing", ""}, {400, "odd", connector.ClassRefused}, {400, "", connector.ClassRefused},
		{429, "quota", ""}, {408, "quota", ""}, {500, "quota", ""}, {200, "quota", ""},
	} {
		e := table.Error(c.status, c.text)
		assert.Equal(t, c.class, e.Class, "%d %s", c.status, c.text)
		assert.Equal(t, c.text, e.Detail)
	}
	assert.Equal(t, "wake it", table.Error(503, "asleep").Mend)
}
