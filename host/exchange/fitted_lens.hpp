// A finished fit as a lens for other packages' files.
#pragma once

#include "host/exchange/exchange.hpp"
#include "host/results/assess.hpp"
#include "host/results/result_files.hpp"

namespace einfield {

/// @param threads  to sample networks; 0 = as many as the process may use
ExchangedLens fitted_lens(const Assessment& fit, int threads);

/// Writes coolest.json and its maps beside the results of a fit. @param fit  must outlive the writer
ExtraWriter coolest_writer(const Assessment& fit, int threads);

}  // namespace einfield
