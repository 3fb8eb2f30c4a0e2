package issuers_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/issuers"
	"github.com/certctl/certctl/coordinator/issuers/issuerstest"
	"github.com/certctl/certctl/internal/fakeca"
	"github.com/certctl/certctl/internal/fakeca/served"
)

// New credentials have an account go on that rested for the old ones, each of them
// and nothing else.
func TestChangedCredentialsResumeAnAccount(t *testing.T) {
	for _, kind := range served.Kinds() {
		fake := issuerstest.Serve(t, kind, fakeca.Config{})
		files := fake.Secrets()
		if file := fake.Setting("client_certificate_file"); file != "" {
			files["client_certificate"] = file
		}
		registry, err := open(t, "issuers:\n  one:\n"+fake.Settings("    "), issuers.Options{})
		require.NoError(t, err)
		synctest.Test(t, func(t *testing.T) {
			e := new(engine)
			s := e.service(t, registry, time.Now())
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			pass := func() {
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			pass()
			assert.Empty(t, e.resumed, "%s: nothing has changed", kind)
			for name, file := range files {
				kept, err := os.ReadFile(file)
				require.NoError(t, err)
				e.resumed = nil
				require.NoError(t, os.Remove(file))
				pass()
				assert.Empty(t, e.resumed, "%s: %s is not there", kind, name)
				require.NoError(t, os.WriteFile(file, append([]byte("new"), kept...), 0o600))
				pass()
				assert.Equal(t, []string{"one"}, e.resumed, "%s: %s has changed", kind, name)
				pass()
				assert.Len(t, e.resumed, 1)
				e.follows = true
				require.NoError(t, os.WriteFile(file, kept, 0o600))
				pass()
				assert.Len(t, e.resumed, 1, "%s: another node leads", kind)
				e.follows = false
			}
			stop()
			require.NoError(t, <-ended)
		})
	}
}
