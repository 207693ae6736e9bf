// The table of a survey: a row for every lens of the manifest, in its order.
#pragma once

#include "host/batch/manifest.hpp"
#include "host/batch/row_store.hpp"
#include "host/files/table.hpp"

namespace einfield {

/// Finished lenses have what their rows say, all others the status "unfinished". The columns: id; ra, dec, z_lens and
/// z_source where the manifest has them; status, flags (bits), flag_names, message; chi2, pixels; NAME, NAME_err (1 σ),
/// NAME_lower3 and NAME_upper3 (the interval of 3 σ) of every free parameter of any lens, in the order of their first
/// appearance; what is derived from the fit; how it was made. The same rows give the same table.
Table survey_table(const Manifest& manifest, const RowStore& rows);

/// The row of a lens of the manifest, of one without a row with the status "unfinished".
LensRow row_in(const RowStore& rows, const std::string& id);

}  // namespace einfield
