package testpostgres_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/internal/testpostgres"
)

// What was committed survives a kill of all processes, and nobody without the
// password gets in.
func TestServerIsKilledAndRunsAgain(t *testing.T) {
	s, err := testpostgres.Start(testpostgres.Options{Durable: true, Password: "a b/c?d"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	ctx := t.Context()
	require.NoError(t, s.Create(ctx, "one"))
	require.NoError(t, s.Exec(ctx, "one", "create table kept as select 42 as number; grant select on kept to public"))
	require.NoError(t, s.Kill())
	require.Error(t, s.Exec(ctx, "one", "select 1"))
	require.NoError(t, s.Run())
	conn, err := pgx.Connect(ctx, s.URL("one"))
	require.NoError(t, err)
	defer conn.Close(ctx)
	var number int
	require.NoError(t, conn.QueryRow(ctx, "select number from kept").Scan(&number))
	assert.Equal(t, 42, number)
	_, err = pgx.Connect(ctx, strings.Replace(s.URL("one"), "a%20b", "b%20a", 1))
	require.ErrorContains(t, err, "28P01")

	require.NoError(t, s.Stop())
	require.NoError(t, s.Close())
	_, err = os.Stat(s.DataDir())
	assert.True(t, errors.Is(err, os.ErrNotExist), "%v", err)
}
