package sectigo

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/connector"
)

// FuzzParse reads anything as a failure and as the details of a certificate.
// FuzzAnswers beside it has the whole connector meet such answers.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"code":-183,"description":"d"}`, `{"code":"-16"}`, `{"code":{}}`, `null`, ``,
		`{"id":1,"sslId":"1","status":"Issued","comments":"c 00112233445566778899aabbccddeeff","customFields":[{"name":"a","value":"b"}],"requested":"01/02/2027"}`,
	} {
		f.Add([]byte(seed))
	}
	s, err := New(Config{
		URL: URLPassword, Auth: AuthPassword, Login: "l", CustomerURI: "c", Password: func() (string, error) { return "p", nil }, Organization: 1, Profile: 2, Terms: []int{90},
	})
	require.NoError(f, err)
	r := &connector.Request{Reference: "00112233445566778899aabbccddeeff"}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := &connector.Answer{Status: 400, Body: data}
		if e := problem(answer); e != nil {
			assert.Regexp(t, "^[-0-9]+$", e.Code)
		}
		if e := tokenProblem(answer); e != nil {
			assert.NotEmpty(t, e.Code)
		}
		var body detailsAnswer
		if answer.Decode(&body) != nil {
			return
		}
		status := s.status(&body, r, connector.Handle{Order: "7"})
		assert.NotEmpty(t, status.State)
		assert.Regexp(t, "^[0-9]+$", status.Handle.Order)
		assert.LessOrEqual(t, len(status.Raw), 64)
		assert.Contains(t, []string{"", r.Reference}, status.Reference)
	})
}
